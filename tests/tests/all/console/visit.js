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

/** What somebody without a mouse would complain about: the Tab key reaches every place, visibly, and then
 * comes back to the first. */
async function byKeyboard(page) {
  const complaints = [];
  const seen = new Set();
  for (let step = 0; step < 400; step += 1) {
    await page.keyboard.press("Tab");
    const place = await page.evaluate(() => {
      const element = document.activeElement;
      if (!element || element === document.body) return null;
      element.dataset.place ??= String(performance.now());
      const { outlineStyle } = getComputedStyle(element);
      return { id: element.dataset.place, text: element.textContent.trim().slice(0, 40), outlineStyle };
    });
    if (!place || seen.has(place.id)) return complaints;
    if (seen.size === 0 && place.text !== "Skip to the content") {
      complaints.push(`the Tab key begins with ${place.text}`);
    }
    if (place.outlineStyle === "none") complaints.push(`the focus cannot be seen: ${place.text}`);
    seen.add(place.id);
  }
  return [...complaints, "the Tab key does not come back"];
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
    // A page itself may say that something is not there, or does not work.
    const isPage = response.request().isNavigationRequest();
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
    for (const text of await overflowing(page)) complain(text);
    // Colours and widths do not depend on each other: two of the four suffice for what takes long.
    if ((colorScheme === "light") === (width === WIDTHS[1])) {
      for (const text of [...(await against(page)), ...(await byKeyboard(page))]) complain(text);
    }
    await page.evaluate(() => {
      document.activeElement?.blur();
      scrollTo(0, 0);
    });
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
