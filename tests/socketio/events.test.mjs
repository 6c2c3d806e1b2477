// Every command of a client with its acknowledgement, and every event of the contract that comes while all parts are there,
// over each transport. `resume_pending` and `degraded` take a store that is away: away.mjs.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client, MODES } from './client.mjs';
import { Service } from './service.mjs';

let service;
before(async () => (service = await Service.start()));
after(() => service.stop());

for (const mode of Object.keys(MODES)) {
  describe(mode, () => {
    let alice, bob, carol, a, b, conversationId;
    before(async () => {
      [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map((name) => service.person(name)));
      a = await Client.connect(service, mode, alice);
      b = await Client.connect(service, mode, bob);
      await Promise.all([a.resume(), b.resume()]);
    });
    after(() => [a, b].forEach((client) => client?.close()));

    test('the transport is the one asked for', () => {
      assert.equal(a.transport, MODES[mode].at(-1));
    });

    test('conversation_created goes to both before anything else', async () => {
      conversationId = await service.direct(alice, bob);
      for (const client of [a, b]) {
        const created = await client.event('conversation_created');
        assert.equal(created.conversationId, conversationId);
        assert.equal(created.type, 'direct');
      }
    });

    test('send_message is acknowledged and told to both as new_message, byte for byte', async () => {
      const content = 'Grüße, 世界 👩‍👩‍👧‍👦 "quoted" \\ \u0000 \u2028 </script>';
      const sent = await a.say(conversationId, content);
      assert.equal(sent.ok, true);
      for (const client of [a, b]) {
        const message = await client.event('new_message', (m) => m.messageId === sent.messageId);
        assert.equal(message.content, content);
        assert.equal(message.senderId, alice.userId);
        assert.equal(message.conversationId, conversationId);
        assert.equal(message.messageType, 'text');
        assert.equal(message.timestamp, sent.timestamp);
        assert.equal(message.position, sent.position);
      }
    });

    test('join_conversation answers who is there and lets typing and presence be told', async () => {
      const joined = await a.ok('join_conversation', { conversationId });
      assert.deepEqual(joined.participants.map((p) => p.userId), [bob.userId]);
      // Presence is told a moment after a client came.
      if (joined.participants[0].status !== 'online') await a.event('user_status_change', (s) => s.status === 'online');
      await b.ok('typing_start', { conversationId });
      await b.ok('typing_stop', { conversationId });
      for (const typing of [true, false]) {
        const told = await a.event('user_typing', (t) => t.typing === typing);
        assert.deepEqual(told, { conversationId, userId: bob.userId, typing });
      }
      b.close();
      const gone = await a.event('user_status_change', (s) => s.status === 'offline');
      assert.equal(gone.userId, bob.userId);
      assert.ok(Date.parse(gone.lastSeen));
      b = await Client.connect(service, mode, bob);
      await b.resume();
      await a.event('user_status_change', (s) => s.status === 'online' && s.userId === bob.userId);
    });

    test('after leave_conversation typing is told no more', async () => {
      await a.ok('leave_conversation', { conversationId });
      const before = a.of('user_typing').length;
      await b.ok('typing_start', { conversationId });
      const { messageId } = await b.say(conversationId, 'after typing');
      await a.event('new_message', (m) => m.messageId === messageId);
      assert.equal(a.of('user_typing').length, before);
    });

    test('mark_delivered and mark_read are told to the sender', async () => {
      const { messageId } = await a.say(conversationId, 'did you get this?');
      await b.event('new_message', (m) => m.messageId === messageId);
      await b.ok('mark_delivered', { messageId });
      const delivered = await a.event('message_delivered', (r) => r.messageId === messageId);
      assert.equal(delivered.userId, bob.userId);
      assert.ok(Date.parse(delivered.deliveredAt));
      await b.ok('mark_read', { messageId });
      const read = await a.event('message_read', (r) => r.messageId === messageId);
      assert.equal(read.userId, bob.userId);
      assert.ok(Date.parse(read.readAt));
    });

    test('add_reaction, remove_reaction, edit_message and delete_message are told to both', async () => {
      const { messageId } = await a.say(conversationId, 'first');
      const ofMessage = (told) => told.messageId === messageId;
      await b.ok('add_reaction', { messageId, reaction: '👍' });
      await a.event('reaction_added', (r) => ofMessage(r) && r.reaction === '👍' && r.userId === bob.userId);
      await b.event('reaction_added', ofMessage);
      await b.ok('remove_reaction', { messageId, reaction: '👍' });
      await a.event('reaction_removed', (r) => ofMessage(r) && r.reaction === '👍');
      await b.event('reaction_removed', ofMessage);
      await a.ok('edit_message', { messageId, content: 'second' });
      for (const client of [a, b]) assert.equal((await client.event('message_edited', ofMessage)).content, 'second');
      await a.ok('delete_message', { messageId });
      for (const client of [a, b]) {
        assert.equal((await client.event('message_deleted', ofMessage)).deletedBy, alice.userId);
      }
      const hidden = await b.say(conversationId, 'hidden');
      await a.ok('delete_message', { messageId: hidden.messageId, scope: 'me' });
      await a.event('message_deleted', (d) => d.messageId === hidden.messageId);
    });

    test('changes of a group are told to its participants', async () => {
      const group = await service.group('Garden', alice, bob);
      const path = `/api/messages/conversations/${group}`;
      const ofGroup = (told) => told.conversationId === group;
      await b.event('conversation_created', ofGroup);
      await service.rest('PUT', path, alice, { name: 'Gardens' });
      for (const client of [a, b]) assert.equal((await client.event('conversation_updated', ofGroup)).name, 'Gardens');
      await service.rest('POST', `${path}/participants`, alice, { participantIds: [carol.userId] });
      const ofCarol = (told) => ofGroup(told) && told.userId === carol.userId;
      for (const client of [a, b]) assert.equal((await client.event('participant_added', ofCarol)).role, 'member');
      await b.event('new_message', (m) => ofGroup(m) && m.system?.kind === 'participants_added');
      await service.rest('DELETE', `${path}/participants/${carol.userId}`, alice);
      for (const client of [a, b]) assert.equal((await client.event('participant_removed', ofCarol)).by, alice.userId);
    });

    test('authenticate renews the token', async () => {
      const answer = await a.ok('authenticate', { token: service.token(alice, { expiresInS: 7200 }) });
      assert.equal(answer.userId, alice.userId);
      const wrong = await a.ask('authenticate', { token: service.token(bob) });
      assert.equal(wrong.error.code, 'invalid_token');
    });

    test('what is wrong is answered, and told as error where nobody waits for an answer', async () => {
      const code = async (...asked) => {
        const answer = await a.ask(...asked);
        assert.equal(answer.ok, false);
        assert.equal(typeof answer.error.message, 'string');
        return answer.error.code;
      };
      assert.equal(await code('no_such_command', {}), 'unknown_event');
      assert.equal(await code('send_message'), 'malformed');
      assert.equal(await code('send_message', { conversationId: 5 }), 'malformed');
      assert.equal(await code('send_message', { conversationId, content: '', messageType: 'text' }), 'invalid_value');
      assert.equal(await code('typing_start', { conversationId: 'x' }), 'invalid_value');
      assert.equal(await code('join_conversation', { conversationId: bob.userId }), 'not_found');
      assert.equal(await code('send_message', { content: Buffer.from('binary') }), 'malformed');
      assert.equal(await code('edit_message', JSON.parse('['.repeat(40) + ']'.repeat(40))), 'malformed');
      assert.equal(await code('send_message', { conversationId, content: '\ud800', messageType: 'text' }), 'not_unicode');
      a.socket.emit('no_such_command', {});
      const error = await a.event('error');
      assert.equal(error.code, 'unknown_event');
      assert.equal(error.command, 'no_such_command');
      assert.equal(error.closeCode, undefined);
      a.socket.emit('send_message', { conversationId, content: '', messageType: 'text' });
      const refused = await a.event('error', (told) => told.code === 'invalid_value');
      assert.equal(refused.pointer, '/content');
      assert.equal(refused.command, 'send_message');
      // All that ended nothing.
      await a.say(conversationId, 'still here');
    });
  });
}

test('conversation_reset stands for more than can be replayed', async () => {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((name) => service.person(name)));
  const conversationId = await service.direct(alice, bob);
  const a = await Client.connect(service, 'websocket', alice);
  const b = await Client.connect(service, 'websocket', bob);
  const checkpoint = await b.resume();
  b.close();
  for (let n = 0; n <= 1000; n += 91) {
    await Promise.all([...Array(91).keys()].map((i) => a.say(conversationId, `${n + i}`)));
  }
  const again = await Client.connect(service, 'websocket', bob);
  await again.resume(checkpoint);
  assert.deepEqual(again.of('conversation_reset'), [{ conversationId }]);
  assert.deepEqual(again.of('new_message'), []);
  [a, again].forEach((client) => client.close());
});

test('a checkpoint comes by itself, and a resume may begin from it', async () => {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((name) => service.person(name)));
  const conversationId = await service.direct(alice, bob);
  const a = await Client.connect(service, 'websocket', alice);
  const b = await Client.connect(service, 'websocket', bob);
  await b.resume();
  await a.say(conversationId, 'before');
  await b.event('new_message');
  // One each half a minute at most.
  const { checkpoint } = await b.event('checkpoint', undefined, 60_000);
  b.close();
  await a.say(conversationId, 'after');
  const again = await Client.connect(service, 'websocket', bob);
  await again.resume(checkpoint);
  assert.deepEqual(again.of('new_message').map((message) => message.content), ['after']);
  [a, again].forEach((client) => client.close());
});
