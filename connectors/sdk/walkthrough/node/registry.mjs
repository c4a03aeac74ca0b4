// A connector for a registry of lines, as a container of its own: Node.js 18 or later, and nothing but its standard library.
// What it serves and calls is MetIP's contract of custom connectors; what it speaks to the registry is the registry's business.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const { METIP_ROLE, METIP_PORT, METIP_BUS, METIP_SECRETS, REGISTRY } = process.env;
const patience = 10_000; // how long an answer of the registry is waited for, in ms
const maxBody = 8 << 20; // the largest body that the bus carries

// Problem is why something does not work: the reason and the words reach the Connector's status.
class Problem extends Error {
  constructor(status, reason, detail) {
    super(detail);
    Object.assign(this, { status, reason });
  }
}
const lost = (why) => new Problem(503, 'ConnectionFailed', `registry ${REGISTRY}: ${why}`);

// secret is a file of the user's Secret. It is read anew each time: a change needs no restart.
function secret(name) {
  try {
    return readFileSync(`${METIP_SECRETS}/${name}`, 'utf8').trimEnd();
  } catch (e) {
    throw new Problem(503, 'CredentialsMissing', `the Secret's ${name} is not there: ${e.code}`);
  }
}

// Session is a connection to the registry that has proved who it is. One question is asked at a time.
class Session {
  static async open() {
    const greeting = `HELLO ${secret('username')} ${secret('password')}`;
    const s = new Session();
    s.greeting = greeting;
    s.socket = connect(Number(REGISTRY.split(':').pop()), REGISTRY.slice(0, REGISTRY.lastIndexOf(':')));
    s.socket.setNoDelay(true).on('error', (e) => s.end(e.message)).on('close', () => s.end('it has closed the connection'));
    createInterface({ input: s.socket }).on('error', (e) => s.end(e.message)).on('line', (line) => s.answered?.(line));
    const answer = await s.ask(greeting);
    if (answer !== 'OK') {
      s.socket.destroy();
      throw new Problem(503, 'AuthenticationFailed', `registry ${REGISTRY} refuses the user: ${answer}`);
    }
    return s;
  }

  ask(question) {
    if (this.ended) throw lost(this.ended);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.end('no answer in time'), patience);
      this.answered = (line) => { clearTimeout(timer); this.answered = this.failed = null; resolve(line); };
      this.failed = (why) => { clearTimeout(timer); this.answered = this.failed = null; reject(lost(why)); };
      this.socket.write(question + '\n');
    });
  }

  end(why) {
    this.ended ??= why;
    this.socket.destroy();
    this.failed?.(this.ended);
  }

  // current says whether the session is open, and the Secret still the one that it was opened with.
  current() {
    return !this.ended && this.greeting === `HELLO ${secret('username')} ${secret('password')}`;
  }
}

// A source: take a record, post it to the bus, and acknowledge it to the registry when the bus has it.
let state = lost('no connection yet');
let ending = false; // the pod ends: what has been begun is brought to its end, if the bus still takes it

async function source() {
  for (let wait = 100; !ending; wait = Math.min(2 * wait, 5000)) {
    const began = Date.now();
    try {
      await read();
    } catch (e) {
      state = e;
    }
    if (Date.now() - began > 5000) wait = 100;
    if (!ending) await pause(Math.min(wait, 1000));
  }
  process.exit(0);
}

async function read() {
  const s = await Session.open();
  state = null;
  try {
    while (!ending && s.current()) {
      const record = await s.ask('TAKE');
      if (record === 'NONE') continue;
      if (ending) return; // the registry gives it to another
      const cut = record.indexOf(' ');
      const id = record.slice(0, cut);
      const outcome = publish(id, record.slice(cut + 1));
      // Meanwhile the registry is asked whether it is there: the status must say so when it is not, also while the bus is full.
      while ((await Promise.race([outcome, pause(1000)])) === undefined) await s.ask('PING');
      if ((await outcome) === '') return;
      const answer = await s.ask(`${await outcome} ${id}`);
      if (answer !== 'OK') throw lost(`the answer to ${await outcome} is ${answer.slice(0, 100)}`);
    }
  } finally {
    s.end('over');
  }
}

// publish a record until the bus has it (DONE), can never take it (REFUSE), or the pod ends (nothing). The same id again is stored once.
async function publish(id, body) {
  for (let wait = 100; !ending; wait = Math.min(2 * wait, 5000)) {
    try {
      const answer = await fetch(`${METIP_BUS}/messages`, {
        method: 'POST', body, headers: { 'Content-Type': 'application/json', 'Idempotency-Key': id },
      });
      const text = await answer.text();
      if (answer.ok) return 'DONE';
      if (answer.status < 500 && ![408, 425, 429].includes(answer.status)) {
        console.warn(`record ${id} cannot be taken: ${text}`);
        return 'REFUSE';
      }
    } catch {
      // MetIP's container starts again: the record is kept, and posted once more
    }
    await pause(wait);
  }
  return '';
}

// A sink: put a message into the registry. It takes an id once, so that a delivery that is repeated changes nothing.
const idle = [];

async function session() {
  for (let s = idle.pop(); s; s = idle.pop()) {
    if (s.current()) return s;
    s.end('over');
  }
  return Session.open();
}

async function ask(question) {
  const s = await session();
  const answer = await s.ask(question);
  if (idle.length < 4) idle.push(s);
  else s.end('over');
  return answer;
}

async function put(request) {
  const id = createHash('sha256').update(request.headers['idempotency-key']).digest('hex');
  const parts = [];
  let size = 0;
  for await (const part of request) {
    parts.push(part);
    if ((size += part.length) > maxBody) throw new Problem(413, '', `the body is larger than ${maxBody} bytes`);
  }
  // A record is one line. In JSON no line break means anything.
  const answer = await ask(`PUT ${id} ${Buffer.concat(parts).toString().replace(/[\r\n]/g, ' ')}`);
  if (answer.startsWith('BAD')) throw new Problem(422, '', `the registry refuses the record: ${answer.slice(4, 200)}`);
  if (answer !== 'OK') throw new Problem(500, '', `the registry does not take the record: ${answer.slice(0, 200)}`);
}

// check says whether the registry works, at no cost for a source, which knows.
async function check() {
  if (METIP_ROLE === 'Sink') await ask('PING');
  else if (state) throw state;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const server = createServer(async (request, response) => {
  try {
    if (request.url === '/check') await check();
    else if (request.url === '/messages' && METIP_ROLE === 'Sink') await put(request);
    else throw new Problem(404, '', `there is no ${request.url}`);
    response.writeHead(204).end();
  } catch (e) {
    response.writeHead(e.status ?? 500, { 'Content-Type': 'application/problem+json' });
    response.end(JSON.stringify({ reason: e.reason, detail: e.message }));
  }
}).listen(Number(METIP_PORT), '127.0.0.1');

process.on('SIGTERM', () => {
  ending = true;
  if (METIP_ROLE === 'Sink') server.close(() => process.exit(0)).closeIdleConnections();
});
if (METIP_ROLE === 'Source') source();
