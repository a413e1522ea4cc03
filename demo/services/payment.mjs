#!/usr/bin/env node
// A payment service that takes part in sagas: Node's standard library, and a file for what must not be forgotten.
//
//     demo/services/payment.mjs --port 8200 --database payments.jsonl
//
// Its one rule: what is answered is written, in one line with the deed, before it is answered. So whoever asks again under a
// key gets the answer that was given, whatever happened in between; and what was called off before it came stays called off.

import { closeSync, existsSync, fsyncSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

const LIMIT_CENTS = 100_000;
const EVENT = { 'Content-Type': 'application/cloudevents+json' };
const PROBLEM = { 'Content-Type': 'application/problem+json' };

const { values: asked } = parseArgs({
  options: { port: { type: 'string', default: '8200' }, database: { type: 'string', default: 'payments.jsonl' } },
});

/** What every line of the file says: the answer to a key, and what stands since. */
const answers = new Map(), charges = new Map(), calledOff = new Set();

function apply({ key, answer, charge, off }) {
  answers.set(key, answer);
  if (charge) charges.set(charge.saga, charge.cents);
  if (off) { calledOff.add(off); charges.delete(off); }
}

function recover(file) {
  if (!existsSync(file)) return;
  const text = readFileSync(file, 'utf8');
  // A line without its end was being written when the process died: nobody was answered.
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  if (whole.length < text.length) truncateSync(file, Buffer.byteLength(whole));
  for (const line of whole.split('\n').filter(Boolean)) apply(JSON.parse(line));
}

recover(asked.database);
const log = openSync(asked.database, 'a');

function keep(entry) {
  writeSync(log, JSON.stringify(entry) + '\n');
  fsyncSync(log);
  apply(entry);
}

const event = (type, data) => ({ specversion: '1.0', type, source: '/payments', id: '1', data });
const problem = (status, code, detail, more = {}) => ({ answer: { status, headers: PROBLEM, body: { code, detail, ...more } } });

function charge(saga, order) {
  if (!Number.isInteger(order?.amountCents)) return problem(400, 'not-an-order', 'amountCents must be a whole number');
  if (calledOff.has(saga)) return problem(422, 'called-off', 'the order was called off before it came');
  const cents = order.amountCents;
  if (cents > LIMIT_CENTS) {
    const failed = { orderId: order.orderId, code: 'LIMIT_EXCEEDED', detail: `${cents} is above ${LIMIT_CENTS}` };
    return problem(422, failed.code, failed.detail, { events: [event('PaymentFailed', failed)] });
  }
  const { orderId, sku, quantity, amountCents } = order;
  const processed = { paymentId: `p-${saga}`, orderId, sku, quantity, amountCents };
  return { answer: { status: 201, headers: EVENT, body: event('PaymentProcessed', processed) }, charge: { saga, cents } };
}

function refund(saga) {
  const cents = charges.get(saga);
  if (cents === undefined) return { answer: { status: 200, headers: { 'Sagahost-Outcome': 'nothing-to-undo' }, body: {} }, off: saga };
  const refunded = { orderId: saga, paymentId: `p-${saga}`, amountCents: cents };
  return { answer: { status: 200, headers: { 'Sagahost-Outcome': 'undone', ...EVENT }, body: event('PaymentRefunded', refunded) }, off: saga };
}

/** In one turn of the event loop: two requests under one key, and of one saga, come one after the other. */
function answered(path, headers, body) {
  const key = headers['idempotency-key'];
  if (!key || !['/payments', '/payments/cancel'].includes(path)) return { status: 404, headers: {}, body: {} };
  if (!answers.has(key)) {
    let message, entry;
    try { message = JSON.parse(body); } catch { entry = problem(400, 'not-json', 'the body is not JSON'); }
    entry ??= path === '/payments' ? charge(headers['ce-sagaid'], message) : refund(message?.sagaId);
    keep({ key, ...entry });
  }
  return answers.get(key);
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const { status, headers, body } = answered(request.url, request.headers, Buffer.concat(chunks).toString());
    response.writeHead(status, headers).end(JSON.stringify(body));
  });
});
server.listen(Number(asked.port), '127.0.0.1', () => console.log(`payments on http://127.0.0.1:${server.address().port}`));
process.on('exit', () => closeSync(log));
