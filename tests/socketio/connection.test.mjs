// Who is let in, and how connections end.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { Client, MODES } from './client.mjs';
import { Service, within } from './service.mjs';

const HANDSHAKE = '/socket.io/?EIO=4&transport=polling';
const WAITING = 3;
let service;
before(async () => {
  service = await Service.start({ REEDI_OUTBOX_BYTES: '256KiB' });
});
after(() => service.stop());

const refusal = async (transports, options) => {
  const client = new Client(service, transports, options);
  const error = await within(client.came.then(() => null, (error) => error), 'connect_error');
  client.close();
  return error?.message;
};

/** What the client is told before its end, and how it takes the end itself. */
const ending = async (client) => {
  const reason = await within(client.ended, 'disconnect', 30_000);
  return { reason, ...client.of('error').at(-1) };
};

for (const [mode, transports] of Object.entries(MODES)) {
  describe(mode, () => {
    test('a token in auth or in the Authorization header lets in', async () => {
      const person = await service.person('dora');
      const client = await Client.connect(service, mode, person);
      client.close();
      const extraHeaders = { authorization: `Bearer ${person.token}` };
      const other = await Client.connect(service, mode, person, { auth: {}, extraHeaders });
      other.close();
    });

    test('without a good token the stable code says why', async () => {
      const person = await service.person('dora');
      const expired = service.token(person, { expiresInS: -60 });
      assert.equal(await refusal(transports, { auth: {} }), 'unauthenticated');
      assert.equal(await refusal(transports, { auth: { token: 5 } }), 'unauthenticated');
      assert.equal(await refusal(transports, { auth: { token: 'bad' } }), 'invalid_token');
      assert.equal(await refusal(transports, { auth: { token: `${person.token.slice(0, -4)}AAAA` } }), 'invalid_token');
      assert.equal(await refusal(transports, { auth: { token: expired } }), 'token_expired');
      if (mode === 'websocket') await service.until('reedi_sockets_unauthenticated', 0, 1000);
    });

    test('4401: a token that runs out, unless it was renewed in time', async () => {
      const person = await service.person('dora');
      // 30 s are leeway.
      const auth = { token: service.token(person, { expiresInS: -27 }) };
      const [client, renewed] = await Promise.all([0, 1].map(() => Client.connect(service, mode, person, { auth })));
      await renewed.ok('authenticate', { token: person.token });
      const end = await ending(client);
      assert.deepEqual([end.code, end.closeCode, end.reason], ['token_expired', 4401, 'io server disconnect']);
      await renewed.resume();
      renewed.close();
    });

    test('4409: the same device connected elsewhere', async () => {
      const person = await service.person('dora');
      const auth = { token: service.token(person, { device: 7 }) };
      const first = await Client.connect(service, mode, person, { auth });
      const second = await Client.connect(service, mode, person, { auth });
      const end = await ending(first);
      assert.deepEqual([end.code, end.closeCode, end.reason], ['replaced', 4409, 'io server disconnect']);
      await second.resume();
      second.close();
    });

    test('4429: a flood, after which the client comes back by itself', async () => {
      const person = await service.person('dora');
      const conversationId = await service.direct(person, await service.person('emil'));
      const client = await Client.connect(service, mode, person, { reconnection: true, reconnectionDelay: 10 });
      for (let n = 0; n < 4000; n++) {
        client.socket.emit('send_message', { conversationId, content: 'x'.repeat(100), messageType: 'text' });
      }
      const end = await ending(client);
      assert.deepEqual([end.code, end.closeCode, end.reconnectAfterMs], ['rate_limited', 4429, 2000]);
      assert.match(end.reason, /^transport (close|error)$/);
      await within(new Promise((resolve) => client.socket.once('connect', resolve)), 'reconnect');
      await client.resume();
      client.close();
    });

    test('more than 256 KiB at once ends the connection', async () => {
      const client = await Client.connect(service, mode, await service.person('dora'));
      assert.equal((await client.ask('typing_start', 'x'.repeat(250 * 1024))).error.code, 'malformed');
      client.socket.emit('typing_start', 'x'.repeat(300 * 1024));
      assert.match(await within(client.ended, 'disconnect'), /^transport (close|error)$/);
    });

    test('1012: a server that leaves says so, and the client looks for another by itself', async () => {
      const leaving = await Service.start();
      const client = await Client.connect(leaving, mode, await leaving.person('dora'), { reconnection: true });
      const trying = new Promise((resolve) => client.socket.io.once('reconnect_attempt', resolve));
      leaving.leave();
      const end = await ending(client);
      assert.match(end.reason, /^transport (close|error)$/);
      // A poll may find the door shut before it can fetch the goodbye.
      if (mode !== 'polling') assert.deepEqual([end.code, end.closeCode], ['restarting', 1012]);
      await within(trying, 'reconnect_attempt');
      client.close();
      await leaving.stop();
    });
  });
}

test('only so many wait to authenticate, and none longer than 10 s', async () => {
  const service = await Service.start({ REEDI_SOCKETS_UNAUTHENTICATED: String(WAITING) });
  const began = Date.now();
  const sockets = [];
  const handshake = () => fetch(service.url + HANDSHAKE);
  const upgrade = (query) => {
    const socket = net.connect(new URL(service.url).port, '127.0.0.1');
    sockets.push(socket);
    socket.write(
      `GET /socket.io/?EIO=4&transport=websocket${query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n` +
        'Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    socket.closed_ = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    return socket;
  };
  assert.equal((await handshake()).status, 200);
  const silent = upgrade('');
  silent.resume();
  await service.until('reedi_sockets_unauthenticated', 2);
  assert.equal((await handshake()).status, 200);
  const full = await handshake();
  assert.equal(full.status, 429);
  assert.equal(full.headers.get('retry-after'), '5');
  assert.equal((await full.json()).code, 'rate_limited');
  await within(silent.closed_, 'the silent one is closed', 20_000);
  await service.until('reedi_sockets_unauthenticated', 0);
  const took = Date.now() - began;
  assert.ok(took > 9_000 && took < 15_000, `${took} ms`);
  sockets.forEach((socket) => socket.destroy());
  await service.stop();
});

test('4408: a client that stops reading is cut off', async () => {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((name) => service.person(name)));
  const conversationId = await service.direct(alice, bob);
  const a = await Client.connect(service, 'websocket', alice);
  const b = await Client.connect(service, 'websocket', bob);
  await b.resume();
  const closed = 'reedi_sockets_closed_total{code="4408"}';
  assert.equal(await service.metric(closed), 0);
  // As a process that was stopped: its system takes what fits its buffers, and nothing more.
  b.socket.io.engine.transport.ws._socket.pause();
  let sent = 0;
  while ((await service.metric(closed)) === 0) {
    assert.ok(sent++ < 2000, 'nothing stops the sender');
    await a.say(conversationId, 'x'.repeat(60_000));
  }
  b.socket.io.engine.transport.ws._socket.resume();
  assert.match(await within(b.ended, 'disconnect', 30_000), /^transport (close|error)$/);
  a.close();
  await service.until('reedi_connections', 0);
});
