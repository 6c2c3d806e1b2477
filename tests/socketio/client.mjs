// A client as a front end has it, with all that it was told written down.
import { randomBytes } from 'node:crypto';
import { io } from 'socket.io-client';
import WebSocket from 'ws';
import { within } from './service.mjs';

/** The ways in which Socket.IO's clients talk. */
export const MODES = {
  websocket: ['websocket'],
  polling: ['polling'],
  'polling, then upgrade': ['polling', 'websocket'],
};

/** What was told, in order, and who waits for what. */
class Told {
  events = [];
  #waiting = new Set();

  add(event, data) {
    this.events.push({ event, data });
    for (const look of this.#waiting) look();
  }

  of(event) {
    return this.events.filter((told) => told.event === event).map((told) => told.data);
  }

  /** The data of the first event of this name that is `wanted`, told already or yet to come. */
  async event(event, wanted = () => true, ms = undefined) {
    return (await this.until((events) => events.find((t) => t.event === event && wanted(t.data)), event, ms)).data;
  }

  async until(find, what, ms = undefined) {
    let look;
    const found = new Promise((resolve) => {
      look = () => {
        const result = find(this.events);
        if (result) resolve(result);
      };
      this.#waiting.add(look);
      look();
    });
    try {
      return await within(found, what, ms);
    } catch (error) {
      throw new Error(`${error.message}; told: ${this.events.map((told) => told.event).join(' ')}`);
    } finally {
      this.#waiting.delete(look);
    }
  }
}

export class Client extends Told {
  constructor(service, transports, options) {
    super();
    this.socket = io(service.url, { forceNew: true, reconnection: false, transports, ...options });
    this.socket.onAny((event, data) => this.add(event, data));
    this.ended = new Promise((resolve) => this.socket.once('disconnect', resolve));
    this.came = new Promise((resolve, reject) => {
      this.socket.once('connect', resolve);
      this.socket.once('connect_error', reject);
    });
    this.came.catch(() => {});
    this.upgraded = new Promise((resolve) => this.socket.io.engine.once('upgrade', resolve));
  }

  /** Connects, by its last transport once it is there. */
  static async connect(service, mode, person, options = {}) {
    const transports = MODES[mode];
    const client = new Client(service, transports, { auth: { token: person.token }, ...options });
    await within(client.came, 'connect');
    if (transports.length > 1) await within(client.upgraded, 'upgrade');
    return client;
  }

  get transport() {
    return this.socket.io.engine.transport.name;
  }

  /** Sends a command; gives its acknowledgement. */
  ask(event, ...data) {
    return this.socket.timeout(15_000).emitWithAck(event, ...data);
  }

  async ok(event, data) {
    const answer = await this.ask(event, data);
    if (!answer.ok) throw new Error(`${event}: ${JSON.stringify(answer)}`);
    return answer;
  }

  say(conversationId, content, more = {}) {
    return this.ok('send_message', { conversationId, content, messageType: 'text', ...more });
  }

  /** Asks for what was missed, or for what happens from now on; gives the checkpoint. */
  async resume(checkpoint) {
    const before = this.of('resume_complete').length;
    await this.ok('resume', { checkpoint });
    await this.until(() => this.of('resume_complete').length > before, 'resume_complete');
    return this.of('resume_complete')[before].checkpoint;
  }

  close() {
    this.socket.disconnect();
  }
}

/** A client of the plain WebSocket. */
export class PlainClient extends Told {
  #acks = new Map();
  #next = 1;

  static async connect(service, person) {
    const client = new PlainClient();
    const url = `${service.url.replace('http', 'ws')}/api/messages/ws`;
    client.socket = new WebSocket(url, 'reedi.v1', { headers: { authorization: `Bearer ${person.token}` } });
    client.socket.on('message', (text) => {
      const { ack, event, data } = JSON.parse(text);
      if (ack === undefined) client.add(event, data);
      else client.#acks.get(ack)(data);
    });
    await within(new Promise((resolve) => client.socket.once('open', resolve)), 'open');
    return client;
  }

  ask(event, data) {
    const ack = this.#next++;
    this.socket.send(JSON.stringify({ event, data, ack }));
    return within(new Promise((resolve) => this.#acks.set(ack, resolve)), event);
  }

  close() {
    this.socket.close();
  }
}

/** A UUIDv7, as clients make them for `clientMessageId`, or made some time ago. */
export function uuidv7(ageMs = 0) {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now() - ageMs, 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
