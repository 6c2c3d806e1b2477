// Content comes back byte for byte, however long JSON makes it; also what came in by another door.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Client, MODES } from './client.mjs';
import { Service } from './service.mjs';

const FRAME_BYTES = 256 * 1024;
const CONTENT_BYTES = 64 * 1024;
// JSON writes these as six characters each; the other fields of a command take less than 400.
const ESCAPED = Math.floor((FRAME_BYTES - 400) / 6);
const CONTENTS = {
  'U+0001': '\u0001'.repeat(ESCAPED),
  'the separator of polled packets': '\u001e'.repeat(ESCAPED),
  'U+007F': '\u007f'.repeat(CONTENT_BYTES),
  'quotation marks and backslashes': '"\\'.repeat(CONTENT_BYTES / 2),
};

let service;
before(async () => (service = await Service.start()));
after(() => service.stop());

for (const mode of Object.keys(MODES)) {
  test(mode, async () => {
    const [alice, bob] = await Promise.all(['alice', 'bob'].map((name) => service.person(name)));
    const conversationId = await service.direct(alice, bob);
    const [a, b] = await Promise.all([alice, bob].map((person) => Client.connect(service, mode, person)));
    await Promise.all([a.resume(), b.resume()]);
    for (const [name, content] of Object.entries(CONTENTS)) {
      const path = `/api/messages/conversations/${conversationId}/messages`;
      const byRest = await service.rest('POST', path, alice, { content, messageType: 'text' });
      const byEvent = await a.say(conversationId, content);
      for (const { messageId } of [byRest, byEvent]) {
        const message = await b.event('new_message', (m) => m.messageId === messageId);
        assert.ok(message.content === content, `${name} changed`);
      }
      const { messages } = await service.rest('GET', `${path}?limit=2`, bob);
      assert.ok(messages.every((message) => message.content === content), `${name} changed in history`);
    }
    a.close();
    b.close();
  });
}
