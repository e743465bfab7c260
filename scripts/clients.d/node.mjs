// Two clients of npm: `eventsource` (the standard's API) and `@microsoft/fetch-event-source` (which
// can send a body). Run by run.py with the client's name and one JSON argument; prints what the
// client dispatches, a line each, as run.py describes. Judges nothing.

import { fetchEventSource } from '@microsoft/fetch-event-source';
import { EventSource } from 'eventsource';

const [name, argument] = process.argv.slice(2);
const { url, body, last } = JSON.parse(argument);

const report = (line) => process.stdout.write(JSON.stringify(line) + '\n');

// What ends the client. The process then ends by itself: exit() would cut what standard output, a
// pipe, has not taken.
const over = new AbortController();

function giveUp(why) {
  report({ failed: why });
  over.abort();
}

function reportMessage(type, lastEventId, data) {
  report({ message: [type, lastEventId, data] });
  if (data.includes(last)) over.abort();
}

function eventsource() {
  const source = new EventSource(url);
  over.signal.onabort = () => source.close();
  source.onopen = () => report({ open: true });
  source.onerror = (error) => {
    console.error(`error: ${error.message} (state ${source.readyState})`);
    if (source.readyState === EventSource.CLOSED) giveUp(error.message);
  };
  for (const type of ['message', 'synced', 'reset'])
    source.addEventListener(type, (event) => reportMessage(type, event.lastEventId, event.data));
}

function fetchEventSourceWithBody() {
  // The library is written for pages; these are the names it uses of theirs.
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
  // It takes an id over when it has read the line, before the event is whole: cut off in between,
  // it would resume after an event that it never showed. So its user resumes for it.
  let lastEventId = '';
  return fetchEventSource(url, {
    fetch: (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, 'last-event-id': lastEventId } }),
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: over.signal,
    openWhenHidden: true,
    async onopen(response) {
      if (response.status !== 200) giveUp(`status ${response.status}`);
      else report({ open: true });
    },
    onmessage: ({ event, id, data }) => {
      lastEventId = id;
      reportMessage(event || 'message', id, data);
    },
    // It takes a stream that ends for finished, unless this throws.
    onclose() {
      report({ closed: 'clean' });
      throw new Error('the stream ended');
    },
    onerror: (error) => console.error(`error: ${error.cause ?? error}`),
  });
}

const clients = { eventsource, 'fetch-event-source': fetchEventSourceWithBody };
await clients[name]();
