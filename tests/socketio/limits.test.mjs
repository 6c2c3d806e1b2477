// How much one may ask for before it is cut off. Each with a service of its own.
import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import { Client } from './client.mjs';
import { Service, within } from './service.mjs';

const HANDSHAKE = '/socket.io/?EIO=4&transport=polling';
const WAITING = 3;

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
    socket.gone = new Promise((resolve) => socket.once('close', resolve));
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
  await within(silent.gone, 'the silent one is closed', 20_000);
  await service.until('reedi_sockets_unauthenticated', 0);
  const took = Date.now() - began;
  assert.ok(took > 9_000 && took < 15_000, `${took} ms`);
  sockets.forEach((socket) => socket.destroy());
  await service.stop();
});

test('4408: a client that stops reading is cut off, whatever waits for it', async () => {
  const service = await Service.start({ REEDI_OUTBOX_BYTES: '256KiB' });
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((name) => service.person(name)));
  const conversationId = await service.direct(alice, bob);
  const b = await Client.connect(service, 'websocket', bob);
  await b.resume();
  const closed = 'reedi_sockets_closed_total{code="4408"}';
  assert.equal(await service.metric(closed), 0);
  // As a process that was stopped: its system takes what fits its buffers, and nothing more.
  const socket = b.socket.io.engine.transport.ws._socket;
  socket.pause();
  const path = `/api/messages/conversations/${conversationId}/messages`;
  const message = { content: 'x'.repeat(60_000), messageType: 'text' };
  let sent = 0;
  const sending = async () => {
    while ((await service.metric(closed)) === 0) {
      assert.ok(sent++ < 2000, 'nothing stops the senders');
      await service.rest('POST', path, alice, message);
    }
  };
  await Promise.all([...Array(8).keys()].map(sending));
  await service.until('reedi_connections', 0);
  socket.resume();
  assert.match(await within(b.ended, 'disconnect', 30_000), /^transport (close|error)$/);
  await service.stop();
});
