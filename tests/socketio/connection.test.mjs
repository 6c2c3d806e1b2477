// Who is let in, and how connections end.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client, MODES } from './client.mjs';
import { Service, within } from './service.mjs';

let service;
before(async () => (service = await Service.start({ REEDI_OUTBOX_BYTES: '256KiB' })));
after(() => service.stop());

const refusal = async (transports, options) => {
  const client = new Client(service, transports, options);
  const error = await within(client.came.then(() => null, (error) => error), 'connect_error');
  client.close();
  return error;
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

    test('without a good token message and data say why', async () => {
      const code = async (options) => {
        const { message, data } = await refusal(transports, options);
        assert.deepEqual(Object.keys(data), ['code', 'message']);
        assert.equal(data.message, message);
        assert.match(message, /\w+ \w+/);
        return data.code;
      };
      const person = await service.person('dora');
      const expired = service.token(person, { expiresInS: -60 });
      assert.equal(await code({ auth: {} }), 'unauthenticated');
      assert.equal(await code({ auth: { token: 5 } }), 'unauthenticated');
      assert.equal(await code({ auth: { token: 'bad' } }), 'invalid_token');
      assert.equal(await code({ auth: { token: `${person.token.slice(0, -4)}AAAA` } }), 'invalid_token');
      assert.equal(await code({ auth: { token: expired } }), 'token_expired');
      if (mode === 'websocket') await service.until('reedi_sockets_unauthenticated', 0, 1000);
    });

    test('who has too many connections is told when to come back', async () => {
      const crowded = await Service.start({ REEDI_CONNECTIONS_PER_ACCOUNT: '1' });
      const person = await crowded.person('dora');
      const client = await Client.connect(crowded, mode, person);
      const second = new Client(crowded, transports, { auth: { token: person.token } });
      const error = await within(second.came.then(() => null, (error) => error), 'connect_error');
      assert.equal(error.data.code, 'rate_limited');
      assert.ok(error.data.retryAfter >= 1, JSON.stringify(error.data));
      second.close();
      client.close();
      await crowded.stop();
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
      const end = await ending(client);
      assert.match(end.reason, /^transport (close|error)$/);
      // What is polled is answered with 413, which ends the connection at the client.
      if (mode !== 'polling') assert.deepEqual([end.code, end.closeCode], ['too_large', 1009]);
      const more = await Client.connect(service, mode, await service.person('emil'));
      more.socket.emit('typing_start', 'x'.repeat(2 * 1024 * 1024));
      assert.match(await within(more.ended, 'disconnect'), /^transport (close|error)$/);
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
