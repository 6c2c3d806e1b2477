// Order, exactly-once sends and resume, over each transport.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client, MODES, PlainClient, uuidv7 } from './client.mjs';
import { Service } from './service.mjs';

const MANY = 200;
let service;
before(async () => (service = await Service.start()));
after(() => service.stop());

const contents = (client) => client.of('new_message').map((message) => message.content);
const numbers = (from, to) => Array.from({ length: to - from }, (_, i) => String(from + i));

for (const mode of Object.keys(MODES)) {
  describe(mode, () => {
    let alice, bob, a, b, conversationId;
    before(async () => {
      [alice, bob] = await Promise.all(['alice', 'bob'].map((name) => service.person(name)));
      conversationId = await service.direct(alice, bob);
      a = await Client.connect(service, mode, alice);
      b = await Client.connect(service, mode, bob);
      await Promise.all([a.resume(), b.resume()]);
    });
    after(() => [a, b].forEach((client) => client?.close()));

    test(`${MANY} messages sent at once arrive once and in the order sent, by every door`, async () => {
      const plain = await PlainClient.connect(service, bob);
      await plain.ask('resume', {});
      await plain.event('resume_complete');
      const answers = await Promise.all(numbers(0, MANY).map((content) => a.say(conversationId, content)));
      const positions = answers.map((answer) => answer.position);
      assert.deepEqual(positions, [...positions].sort((x, y) => x - y));
      for (const client of [a, b, plain]) {
        await client.event('new_message', (message) => message.content === String(MANY - 1));
        assert.deepEqual(contents(client), numbers(0, MANY));
      }
      const told = (client) => client.events.filter(({ event }) => event === 'new_message');
      assert.deepEqual(told(b), told(plain));
      plain.close();
    });

    test('a quick command does not overtake a slow one', async () => {
      // Whether an old id was sent before is looked up in the store, which a new one does without.
      const slow = a.say(conversationId, 'slow', { clientMessageId: uuidv7(60_000) });
      const quick = a.say(conversationId, 'quick', { clientMessageId: uuidv7() });
      const positions = (await Promise.all([slow, quick])).map((answer) => answer.position);
      assert.ok(positions[0] < positions[1], `${positions}`);
      await b.event('new_message', (message) => message.content === 'quick');
      assert.deepEqual(contents(b).slice(-2), ['slow', 'quick']);
    });

    test('the plain WebSocket of the same account is told the same', async () => {
      const plain = await PlainClient.connect(service, bob);
      await plain.ask('resume', {});
      await plain.event('resume_complete');
      const from = b.events.length;
      const { messageId } = await a.say(conversationId, 'same');
      await a.ok('add_reaction', { messageId, reaction: '🌿' });
      await a.ok('remove_reaction', { messageId, reaction: '🌿' });
      await a.ok('edit_message', { messageId, content: 'same again' });
      await a.ok('delete_message', { messageId });
      for (const client of [b, plain]) await client.event('message_deleted', (d) => d.messageId === messageId);
      const durable = (events) => events.filter(({ event }) => !['resume_complete', 'checkpoint'].includes(event));
      assert.deepEqual(durable(plain.events), durable(b.events.slice(from)));
      assert.equal(durable(plain.events).length, 5);
      plain.close();
    });

    test('a message sent again with its clientMessageId is the first one', async () => {
      const clientMessageId = uuidv7();
      const first = await a.say(conversationId, 'once', { clientMessageId });
      assert.equal(first.clientMessageId, clientMessageId);
      assert.equal(first.duplicate, undefined);
      const again = await a.say(conversationId, 'once', { clientMessageId });
      assert.equal(again.duplicate, true);
      assert.equal(again.messageId, first.messageId);
      const other = await a.ask('send_message', { conversationId, content: 'other', messageType: 'text', clientMessageId });
      assert.equal(other.error.code, 'idempotency_key_reused');
      const { messageId } = await a.say(conversationId, 'next');
      await b.event('new_message', (message) => message.messageId === messageId);
      assert.equal(contents(b).filter((content) => content === 'once').length, 1);
    });

    test('a reconnect with resume loses nothing and doubles nothing', async () => {
      const checkpoint = await b.resume();
      b.close();
      const missed = numbers(1000, 1050);
      const live = numbers(1050, 1100);
      for (const content of missed) await a.say(conversationId, content);
      const sending = (async () => {
        for (const content of live) await a.say(conversationId, content);
      })();
      b = await Client.connect(service, mode, bob);
      await b.resume(checkpoint);
      await sending;
      await b.event('new_message', (message) => message.content === live.at(-1));
      assert.deepEqual(contents(b), [...missed, ...live]);
    });

    test('a client that leaves right after sending has sent', async () => {
      const leaving = await Client.connect(service, mode, alice);
      for (const content of numbers(2000, 2020)) {
        leaving.socket.emit('send_message', { conversationId, content, messageType: 'text' });
      }
      leaving.close();
      await b.event('new_message', (message) => message.content === '2019');
      assert.deepEqual(contents(b).filter((content) => content >= '2000' && content.length === 4), numbers(2000, 2020));
    });
  });
}
