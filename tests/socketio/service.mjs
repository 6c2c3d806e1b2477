// A whole service of its own for one test file: `reedi dev` on free ports, with its data in a folder that goes with it.
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const SECRET = 'a secret of this test alone, 32 bytes or more';
/** How long a service may take to start, and to leave. */
const WITHIN_MS = 60_000;

export class Service {
  static async start(settings = {}) {
    const service = new Service();
    service.folder = await mkdtemp(join(tmpdir(), 'reedi-socketio-'));
    service.log = '';
    service.process = spawn(process.env.REEDI_BIN, ['dev'], {
      env: {
        PATH: process.env.PATH,
        REEDI_LISTEN: '127.0.0.1:0',
        REEDI_ADMIN_LISTEN: '127.0.0.1:0',
        REEDI_DATA_DIR: service.folder,
        REEDI_AUTH_HS256_SECRET: SECRET,
        REEDI_DRAIN_SECONDS: '1',
        // The tests are faster than people.
        REEDI_SIGN_IN_BURST: '1000',
        REEDI_ACCOUNT_BURST: '100000',
        REEDI_CONVERSATION_BURST: '100000',
        ...settings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    service.ended = new Promise((resolve) => service.process.once('exit', resolve));
    service.process.stderr.on('data', (text) => (service.log += text));
    const started = new Promise((resolve) => {
      createInterface({ input: service.process.stdout }).on('line', (line) => {
        service.log += `${line}\n`;
        service.url ??= /listens on (http:\/\/[0-9.:]+)/.exec(line)?.[1];
        service.admin ??= /(http:\/\/[0-9.:]+)\/metrics/.exec(line)?.[1];
        if (service.url && service.admin) resolve();
      });
    });
    const failed = service.ended.then((status) => {
      throw new Error(`reedi dev ended with ${status}:\n${service.log}`);
    });
    failed.catch(() => {});
    await within(Promise.race([started, failed]), 'reedi dev starts', WITHIN_MS);
    return service;
  }

  /** Asks the service to leave. */
  leave() {
    this.process.kill('SIGTERM');
  }

  async stop() {
    this.leave();
    try {
      await within(this.ended, 'reedi dev leaves', WITHIN_MS);
    } catch (error) {
      this.process.kill('SIGKILL');
      throw error;
    } finally {
      await rm(this.folder, { recursive: true, force: true });
    }
  }

  async rest(method, path, person, body) {
    const headers = { authorization: `Bearer ${person?.token}` };
    if (body !== undefined) headers['content-type'] = 'application/json';
    const response = await fetch(this.url + path, { method, headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text && JSON.parse(text);
  }

  /** A new account. */
  async person(name) {
    const username = `${name}${Math.random().toString(36).slice(2, 12)}`;
    const { userId, token } = await this.rest('POST', '/api/auth/signup', null, { username, password: 'correct horse' });
    return { userId, token };
  }

  /** A token of an account, as the service would sign it. */
  token(person, { device, expiresInS = 3600 } = {}) {
    const text = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const claims = { sub: person.userId, exp: Math.floor(Date.now() / 1000) + expiresInS, device_id: device };
    const signed = `${text({ alg: 'HS256', typ: 'JWT' })}.${text(claims)}`;
    return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
  }

  async direct(a, b) {
    const path = '/api/messages/conversations/direct';
    return (await this.rest('POST', path, a, { participantId: b.userId })).conversationId;
  }

  async group(name, admin, ...others) {
    const participantIds = others.map((person) => person.userId);
    const path = '/api/messages/conversations/group';
    return (await this.rest('POST', path, admin, { name, participantIds })).conversationId;
  }

  /** The value of a metric, 0 where it is not there yet. */
  async metric(line) {
    const text = await (await fetch(`${this.admin}/metrics`)).text();
    const found = text.split('\n').find((l) => l.startsWith(`${line} `));
    return found ? Number(found.slice(line.length + 1)) : 0;
  }

  /** Waits until a metric has a value. */
  async until(line, value, withinMs = 30_000) {
    const end = Date.now() + withinMs;
    let last;
    while ((last = await this.metric(line)) !== value) {
      if (Date.now() > end) throw new Error(`${line} is ${last} and not ${value} after ${withinMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

export async function within(promise, what, ms = 15_000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
