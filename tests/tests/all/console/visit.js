// Visits pages of the console in a browser: each in both sets of colours, in a narrow and a wide window.
// Prints everything that the pages complained about, that the accessibility rules of axe-core found, and
// that lies outside a narrow window, as JSON; and takes a picture of each.
const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");

const [url, executablePath, rules, pictures, list] = process.argv.slice(1);
const pages = JSON.parse(list);
const axe = fs.readFileSync(rules, "utf8");
const WIDTHS = [360, 1280];

/** What the rules say against the page. */
async function against(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() =>
    axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }),
  );
  return found.violations.flatMap(({ id, help, nodes }) =>
    nodes.map((node) => `${id}: ${help}: ${node.html} ${node.failureSummary}`),
  );
}

/** The elements that make the page wider than its window. */
async function overflowing(page) {
  return page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    const all = [...document.body.querySelectorAll("*")];
    const wide = all.filter((element) => {
      const inside = element.closest(".wide, .json, .rooms");
      return element.getBoundingClientRect().right > width + 1 && (!inside || inside === element);
    });
    return [`${document.documentElement.scrollWidth} px wide: ${wide.map((e) => e.outerHTML.slice(0, 160)).join("\n")}`];
  });
}

/** The places that the Tab key reaches, until it comes back to the first. */
async function tabbed(page) {
  const reached = [];
  for (let step = 0; step < 400; step += 1) {
    await page.keyboard.press("Tab");
    const place = await page.evaluate(() => {
      const element = document.activeElement;
      if (!element || element === document.body) return null;
      if (!element.dataset.reached) element.dataset.reached = String(performance.now());
      const style = getComputedStyle(element);
      return { id: element.dataset.reached, text: element.textContent.trim().slice(0, 40), outline: style.outlineStyle };
    });
    if (!place || reached.some((other) => other.id === place.id)) return { reached, isBack: true };
    reached.push(place);
  }
  return { reached, isBack: false };
}

async function visit(browser, colorScheme, width, complaints) {
  const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 } });
  const page = await context.newPage();
  page.setDefaultTimeout(120_000); // a machine may be busy with other tests
  let at = "";
  const complain = (text) => complaints.push(`${at} (${colorScheme}, ${width} px): ${text}`);
  page.on("pageerror", (error) => complain(`${error}`));
  page.on("requestfailed", (request) => {
    // A page that is left ends what was live on it.
    if (!request.url().includes("/console/live/")) complain(`not loaded: ${request.url()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url)) complain(`from elsewhere: ${request.url()}`);
  });
  page.on("response", (response) => {
    // A page itself may say that there is none.
    const isPage = response.request().isNavigationRequest() && response.status() === 404;
    if (response.status() >= 400 && !isPage) complain(`${response.status()}: ${response.url()}`);
  });
  page.on("console", (message) => {
    const isAnswer = /status of \d+/.test(message.text()); // the answers themselves are checked
    if (["error", "warning"].includes(message.type()) && !isAnswer) complain(message.text());
  });
  const shown = {};
  for (const { path: place, name } of pages) {
    at = place;
    await page.goto(url + place);
    for (const details of await page.locator("main details").all()) {
      await details.evaluate((element) => element.setAttribute("open", ""));
    }
    for (const text of [...(await against(page)), ...(await overflowing(page))]) complain(text);
    const { reached, isBack } = await tabbed(page);
    if (!isBack) complain("the Tab key does not come back");
    if (reached[0]?.text !== "Skip to the content") complain(`the Tab key begins with ${reached[0]?.text}`);
    for (const { text, outline } of reached) {
      if (outline === "none") complain(`the focus cannot be seen: ${text}`);
    }
    await page.evaluate(() => document.activeElement?.blur());
    const picture = path.join(pictures, `${name}-${colorScheme}-${width}.png`);
    await page.screenshot({ path: picture, fullPage: true });
    shown[place] = { title: await page.title(), text: await page.locator("main").innerText() };
  }
  await context.close();
  return shown;
}

async function main() {
  const browser = await chromium.launch({ executablePath });
  const complaints = [];
  let shown = {};
  for (const colours of ["light", "dark"]) {
    for (const width of WIDTHS) shown = await visit(browser, colours, width, complaints);
  }
  await browser.close();
  console.log(JSON.stringify({ shown, complaints }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
