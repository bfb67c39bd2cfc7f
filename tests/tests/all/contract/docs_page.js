// Opens `/docs` in a browser as a newcomer does: on every operation that sends something, with every
// media type of its body, clicks "Try it out" and "Execute", and changes nothing. Prints what was
// answered and everything that the page complained about, as JSON.
const { chromium } = require("playwright-core");

const [url, executablePath] = process.argv.slice(1);

/** Sends one operation with the body that the page filled in. */
async function execute(page, block) {
  const sent = page.waitForResponse((response) => response.request().method() === "POST");
  await block.locator(".btn.execute").click();
  const response = await sent;
  const shown = block.locator(".live-responses-table .response .response-col_status");
  await shown.getByText(String(response.status())).waitFor();
  return {
    path: new URL(response.url()).pathname,
    media_type: await response.request().headerValue("content-type"),
    status: response.status(),
    body: await response.text(),
  };
}

async function main() {
  const browser = await chromium.launch({ executablePath });
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000); // a machine may be busy with other tests
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`${error}`));
  page.on("requestfailed", (request) => complaints.push(`not loaded: ${request.url()}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(url)) complaints.push(`from elsewhere: ${request.url()}`);
  });
  page.on("console", (message) => {
    // Chromium logs each status from 400 on, also of a refusal; the answers themselves are checked.
    const isAnswer = message.location().url.startsWith(`${url}/v1/`);
    if (["error", "warning"].includes(message.type()) && !isAnswer) complaints.push(message.text());
  });
  await page.goto(`${url}/docs`);
  const title = page.locator(".info .title");
  await title.waitFor();
  const operations = page.locator(".opblock-post");
  await operations.first().waitFor();
  const answers = [];
  for (let index = 0; index < (await operations.count()); index += 1) {
    const block = operations.nth(index);
    await block.locator(".opblock-summary-control").click();
    const operation = await block.getAttribute("id");
    const types = block.locator(".opblock-section-request-body select[aria-label='Request content type']");
    await block.locator(".try-out__btn").click();
    const offered = (await types.count()) ? await types.locator("option").allInnerTexts() : [null];
    for (const type of offered) {
      if (type) await types.selectOption(type);
      answers.push({ operation, ...(await execute(page, block)) });
    }
    await block.locator(".opblock-summary-control").click();
  }
  for (const box of [".errors-wrapper", ".validation-errors", ".version-pragma__message--unsupported"]) {
    for (const text of await page.locator(box).allInnerTexts()) complaints.push(`${box}: ${text}`);
  }
  const shown = { title: await page.title(), heading: await title.innerText() };
  await browser.close();
  console.log(JSON.stringify({ ...shown, answers, complaints }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
