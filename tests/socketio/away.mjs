// usage: node away.mjs URL TOKEN     Socket.IO's real client through the time in which a server lacks its store.
//
// Prints `connected`, whereupon the store is taken away; `pending` once each transport was told of it and that a resume
// has to wait, whereupon it comes back; and ends with 0 once each was told that too, and has resumed.
// Its other half: tests/integration/socketio.rs.
import assert from 'node:assert/strict';
import { Client, MODES } from './client.mjs';

/** Until a part that is gone, or there again, has been looked at as often as it takes to say so. */
const WITHIN_MS = 60_000;
const [, , url, token] = process.argv;

const clients = await Promise.all(Object.keys(MODES).map((mode) => Client.connect({ url }, mode, { token })));
const each = (what) => Promise.all(clients.map(what));
const checkpoints = await each((client) => client.resume());
console.log('connected');

await each(async (client, n) => {
  const told = await client.event('degraded', ({ degraded }) => degraded, WITHIN_MS);
  assert.deepEqual(told, { degraded: true, lacks: ['history'] });
  await client.ok('resume', { checkpoint: checkpoints[n] });
  const pending = await client.event('resume_pending', undefined, WITHIN_MS);
  assert.deepEqual(Object.keys(pending).sort(), ['reason', 'retryAfter']);
  assert.match(pending.reason, /\w+ \w+/);
  assert.ok(pending.retryAfter >= 1, JSON.stringify(pending));
  assert.equal(client.of('resume_complete').length, 1, 'nothing is claimed');
});
console.log('pending');

await each(async (client, n) => {
  assert.deepEqual(await client.event('degraded', ({ degraded }) => !degraded, WITHIN_MS), { degraded: false, lacks: [] });
  // As a client does: the store answers again, and may still have to catch up.
  const pending = () => client.of('resume_pending').length;
  for (let before = pending(), done = false; !done; before = pending()) {
    await client.ok('resume', { checkpoint: checkpoints[n] });
    const answered = () => client.of('resume_complete').length > 1 || pending() > before;
    await client.until(answered, 'an answer to resume', WITHIN_MS);
    done = client.of('resume_complete').length > 1;
  }
  client.close();
});
