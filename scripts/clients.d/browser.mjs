// Chromium's own EventSource, in a page of another origin than the server's. Run by run.py with one
// JSON argument; prints what the page's EventSource dispatches, a line each, as run.py describes.
// Leaves a picture of the server's own page beside it, for people to look at. Judges nothing.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { chromium } from 'playwright-core';

const { url, last, picture } = JSON.parse(process.argv[2]);

async function servePage() {
  const page = await readFile(new URL('page.html', import.meta.url));
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(page);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  return { server, origin: `http://127.0.0.1:${server.address().port}` };
}

async function photograph(browser) {
  const page = await browser.newPage({ viewport: { width: 1000, height: 800 } });
  const response = await page.goto(new URL('/', url).href);
  const type = response.headers()['content-type'] ?? '';
  if (response.status() !== 200 || !type.startsWith('text/html'))
    throw new Error(`GET / is not a page: ${response.status()} ${type}`);
  await page.screenshot({ path: picture, fullPage: true });
  await page.close();
}

async function follow(browser, origin) {
  const page = await browser.newPage();
  page.on('console', (message) => console.error(`console: ${message.text()}`));
  page.on('pageerror', (error) => console.error(`page: ${error}`));
  let end, fail;
  const ended = new Promise((resolve, reject) => ([end, fail] = [resolve, reject]));
  await page.exposeFunction('report', (line) => {
    process.stdout.write(JSON.stringify(line) + '\n');
    if (line.failed) fail(new Error(line.failed));
    if (line.message?.[2].includes(last)) end();
  });
  await page.goto(`${origin}/#${encodeURIComponent(url)}`);
  await ended;
}

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
const { server, origin } = await servePage();
try {
  await photograph(browser);
  await follow(browser, origin);
} finally {
  await browser.close();
  server.close();
}
