// Uses the console as people do: changes its colours, follows what is live, looks for a stream, and does it
// without a script. Prints what was seen, as JSON.
const { chromium } = require("playwright-core");

const [url, executablePath] = process.argv.slice(1);

/** The colours switch at once, stay on the next page, and go back to those of the system. */
async function colours(page) {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const seen = [await ground()];
  await page.locator("#theme").click();
  seen.push(await ground());
  await page.goto(`${url}/console/models`);
  seen.push(await ground());
  await page.locator("#theme").click();
  seen.push(await ground());
  return seen;
}

/** The live part changes by itself, until it is stopped. */
async function live(page) {
  await page.goto(`${url}/console`);
  const changes = () =>
    page.evaluate(
      () =>
        new Promise((resolve) => {
          const observer = new MutationObserver(() => {
            observer.disconnect();
            resolve(true);
          });
          observer.observe(document.getElementById("live"), { childList: true });
          setTimeout(() => resolve(false), 60_000);
        }),
    );
  const isLive = await changes();
  const before = await page.locator("#live-switch").innerText();
  await page.locator("#live-switch").click();
  const after = await page.locator("#live-switch").innerText();
  return { isLive, before, after };
}

/** Pauses a projection and resumes it, each with a reason. */
async function control(page) {
  const ask = async (button, reason) => {
    await page.locator(".controls").getByText(button, { exact: true }).click();
    await page.getByLabel("Reason").fill(reason);
    await page.getByLabel("Your name").fill("ana");
    await page.locator("form.ask button").click();
    return page.locator("main").innerText();
  };
  await page.goto(`${url}/console/projections`);
  await page.locator("main table").getByText("payment_mix").click();
  const paused = await ask("Pause", "a release");
  const resumed = await ask("Resume", "it is over");
  return { paused, resumed };
}

/** Filters a read model by a form, and takes the filter off again. */
async function filter(page) {
  await page.goto(`${url}/console/models/daily_sales`);
  const rows = () => page.locator("main tbody tr").count();
  const seen = [await rows()];
  await page.getByLabel("Filter", { exact: true }).selectOption("items.gte");
  await page.getByLabel("Value").fill("3");
  await page.getByText("Add filter").click();
  await page.locator(".chip").waitFor();
  seen.push(await rows());
  await page.locator(".chip a").click();
  await page.locator(".chip").waitFor({ state: "detached" });
  seen.push(await rows());
  const saved = page.waitForEvent("download");
  await page.getByText("Download CSV").click();
  const file = await (await saved).createReadStream();
  let text = "";
  for await (const chunk of file) text += chunk;
  return { seen, csv: text.slice(0, 40) };
}

/** Walks through the life of a stream by a slider, compares two versions, and opens its story. */
async function history(page) {
  await page.goto(`${url}/console/streams?prefix=order-`);
  await page.locator("main table a").first().click();
  await page.locator(".tabs").getByText("Life").click();
  const at = async () => Number(await page.locator("#at").inputValue());
  const last = await at();
  await page.locator("#at").focus();
  await Promise.all([page.waitForURL(/at=/), page.keyboard.press("ArrowLeft")]);
  const before = await at();
  // The next page goes on in the slider.
  const isFocused = await page.evaluate(() => document.activeElement?.id === "at");
  await Promise.all([page.waitForURL(/at=0(&|$)/), page.keyboard.press("Home")]);
  const start = await page.locator("main").innerText();
  await Promise.all([page.waitForURL(/at=1(&|$)/), page.getByText("Later", { exact: true }).click()]);
  const marks = await page.locator(".json mark").count();
  const first = await page.locator("main").innerText();
  await page.locator(".tabs").getByText("Compare").click();
  await page.getByLabel("From version").fill("0");
  await page.getByText("Compare", { exact: true }).last().click();
  await page.waitForURL(/from=0/);
  const compared = await page.locator("main table").innerText();
  await page.locator(".tabs").getByText("Events").click();
  await page.locator(".event .facts a[href*='/stories/']").first().click();
  const story = { title: await page.title(), text: await page.locator("main").innerText() };
  return { last, before, isFocused, start, marks, first, compared, story };
}

/** Clicks on a cell of a row, and sees what gave it its value; then the same of the whole row. */
async function why(page) {
  await page.goto(`${url}/console/models/daily_sales?sort=-orders`);
  const cell = page.locator("main tbody tr").first().locator("td a.cell").first();
  const value = await cell.innerText();
  await cell.click();
  await page.waitForURL(/\/why\?column=/);
  const column = await page.locator("main").innerText();
  const rows = await page.locator("main tbody tr").count();
  await page.getByText("All columns of the row").click();
  await page.waitForURL(/\/why$/);
  const row = await page.locator("main").innerText();
  await page.locator("main tbody th a").first().click();
  await page.waitForURL(/show=life/);
  return { value, column, rows, row };
}

/** Begins a replay; `fields` are values by the id of their field. */
async function begin(page, fields, projection = "daily_sales") {
  await page.goto(`${url}/console/replays`);
  await page.locator("#projection").selectOption(projection);
  for (const [id, value] of Object.entries(fields)) await page.locator(`#${id}`).fill(value);
  await page.locator("form.ask button").click();
  await page.waitForURL(/\/console\/replays\/./);
}

/** Steps a replay by commit and by event with the keyboard, until its condition becomes true again; plays
 * another one to the end. */
async function replay(page) {
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(`${error}`));
  const main = () => page.locator("main").innerText();
  const press = async (name, did) => {
    await page.locator(".replay-controls").getByText(name, { exact: true }).focus();
    await Promise.all([page.waitForURL(new RegExp(`did=${did}$`)), page.keyboard.press("Enter")]);
    return main();
  };
  await begin(page, { until: "orders > 0", schema: "twice" });
  const begun = await main();
  const commit = await press("Next commit", "commit");
  const marked = await page.locator(".changed mark").count();
  const event = await press("Next event", "event");
  const focused = await page.evaluate(() => document.activeElement?.innerText);
  // What plays is shown as it goes, without another visit.
  await press("Play", "play");
  await page.locator("#live .figure .badge").getByText("paused").waitFor();
  const hit = await main();
  const end = await press("End", "end");
  await begin(page, {});
  await press("Play", "play");
  await page.locator("#live").getByText("the log had no more when it began").waitFor();
  const finished = await main();
  await page.locator("main .crumbs a").first().click();
  await page.locator("main table").waitFor();
  return { begun, commit, marked, event, focused, hit, end, finished, list: await main(), complaints };
}

async function main() {
  const browser = await chromium.launch({ executablePath });
  const page = await browser.newPage({ colorScheme: "light" });
  page.setDefaultTimeout(120_000); // a machine may be busy with other tests
  await page.goto(`${url}/console`);
  const seen = { colours: await colours(page), live: await live(page) };
  seen.control = await control(page);
  seen.filter = await filter(page);
  seen.history = await history(page);
  seen.why = await why(page);
  seen.replay = await replay(page);
  // Without a script: from the menu to the events of a stream, and back by the way above the page.
  const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 360, height: 700 } });
  const plain = await context.newPage();
  plain.setDefaultTimeout(120_000);
  await plain.goto(`${url}/console`);
  await plain.locator(".rooms").getByText("Streams").click();
  await plain.locator("main table a").first().click();
  seen.stream = { title: await plain.title(), text: await plain.locator("main").innerText() };
  await plain.locator(".tabs").getByText("Life").click();
  await plain.getByText("Start", { exact: true }).click();
  seen.plainLife = await plain.locator("main").innerText();
  await plain.locator("main .crumbs a").first().click();
  seen.streams = await plain.locator("h1").innerText();
  await begin(plain, { schema: "plain" });
  await plain.getByText("Next commit", { exact: true }).click();
  seen.replay.plain = await plain.locator("main").innerText();
  seen.hidden = await plain.locator("#theme").isHidden();
  await browser.close();
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
