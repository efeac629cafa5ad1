// The readme of @layerscale/layerscale 0.3.0, run: its complete example, then the others in
// their order. What came of each is printed as one JSON object for the test that runs this.

import { LayerScale, LayerScaleError, type Message, type SessionEvent } from "./layerscale.js";

const client = new LayerScale(process.argv[2]!, { timeoutMs: 60_000 });
const seen: Record<string, unknown> = {};

const candles = [
  { o: 150.2, h: 150.8, l: 150.1, c: 150.7, v: 1_200_000, timestamp: 1_733_000_000, sym: "AAPL" },
  { o: 150.7, h: 151.1, l: 150.6, c: 150.95, v: 900_000, timestamp: 1_733_000_060, sym: "AAPL" },
  { o: 150.95, h: 151.4, l: 150.9, c: 151.3, v: 1_500_000, timestamp: 1_733_000_120, sym: "AAPL" },
  { o: 151.3, h: 151.8, l: 151.2, c: 151.75, v: 1_100_000, timestamp: 1_733_000_180, sym: "AAPL" },
  { o: 151.75, h: 152.1, l: 151.6, c: 152.0, v: 1_300_000, timestamp: 1_733_000_240, sym: "AAPL" },
];

async function completeExample() {
  const session = await client.sessions.create({
    type: "ohlcv",
    prompt:
      "You are a real-time market analyst. You receive live OHLCV candles and " +
      "answer questions about market direction in a single word when possible.",
    context: 2048,
    markPrefix: true,
  });
  await client.sessions.push(session.session_id, candles, { wait: true });
  const answer = await client.sessions.query(session.session_id, {
    prompt: "Is the market trending up or down?",
    max_tokens: 8,
    fast_answer: true,
  });
  seen.complete = {
    created: session,
    answer,
    state: await client.sessions.get(session.session_id),
    stats: await client.sessions.stats(session.session_id),
    status: await client.sessions.streamStatus(session.session_id),
  };
  await client.sessions.delete(session.session_id);
  seen.gone = await client.sessions.get(session.session_id).catch((error) => {
    if (!(error instanceof LayerScaleError)) throw error;
    return { status: error.status, message: error.body.error.message };
  });
}

async function sessionsExample() {
  const session = await client.sessions.create({
    type: "ohlcv",
    prompt: "You are a trading analyst.",
    flash: [
      { query: "Is the trend bullish?", max_tokens: 3 },
      { query: "Is volume increasing?", max_tokens: 3 },
    ],
    markPrefix: true,
  });
  const id = session.session_id;
  const events: SessionEvent[] = [];
  const stop = new AbortController();
  const connected = new Promise<void>((resolve) => {
    void (async () => {
      for await (const event of client.sessions.events(id, { signal: stop.signal })) {
        events.push(event);
        if (event.type === "connected") resolve();
      }
    })().catch(() => undefined); // aborted below
  });
  await connected;
  await client.sessions.push(id, candles.slice(0, 2), { wait: true });

  const answer = await client.sessions.query(id, { prompt: "What is the trend?", max_tokens: 6 });
  const chunks = [];
  for await (const chunk of client.sessions.queryStream(id, { prompt: "What is the trend?", max_tokens: 6 })) {
    chunks.push(chunk);
  }
  const appended = await client.sessions.append(id, "The market closes.");
  const registered = await client.sessions.flash(id, "Summarise the trend", 4);
  const listed = await client.sessions.listFlash(id);
  const removed = await client.sessions.unflash(id, registered.id as number);
  const sessions = await client.sessions.list();

  const socket = client.sessions.stream(id);
  const frames: string[] = [];
  await new Promise<void>((resolve, reject) => {
    socket.on("open", () => socket.push([candles[2]]));
    socket.on("error", reject);
    socket.on("push_ack", (data) => frames.push(`push_ack ${data.pushed}`));
    socket.on("flash_ready", (data) => frames.push(`flash_ready ${data.query}`));
    socket.on("data_updated", (data) => {
      frames.push(`data_updated ${data.data_version}`);
      socket.ping();
    });
    socket.on("pong", () => socket.close());
    socket.on("close", () => resolve());
  });
  stop.abort();
  const marked = await client.sessions.markPrefix(id);
  const state = await client.sessions.get(id);
  seen.sessions = {
    id,
    answer,
    chunks,
    appended,
    registered,
    listed,
    removed,
    sessions,
    frames,
    events,
    marked,
    state,
  };
  await client.sessions.delete(id);
}

async function toolsExample() {
  const tools = [
    {
      type: "function" as const,
      function: {
        name: "read_file",
        description: "Read a file",
        parameters: { type: "object", properties: { path: { type: "string" } }, required: ["path"] },
      },
    },
  ];
  const session = await client.sessions.create({ type: "event" });
  const asked: Message[] = [
    { role: "system", content: "You are a coding agent." },
    { role: "user", content: "Read src/App.tsx" },
  ];
  // A model of this size must be told to call.
  const first = await client.sessions.query(session.session_id, {
    messages: asked,
    tools,
    tool_choice: "required",
    max_tokens: 48,
  });
  const call = first.tool_calls![0]!;
  const followUp = await client.sessions.query(session.session_id, {
    messages: [
      ...asked,
      { role: "assistant", content: null, tool_calls: [call] },
      { role: "tool", tool_call_id: call.id, content: "import React from 'react';" },
    ],
    tools,
    max_tokens: 6,
  });
  seen.tools = { first, followUp };
  await client.sessions.delete(session.session_id);
}

async function cancellationExample() {
  const session = await client.sessions.create({ type: "event" });
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 200);
  const params = { prompt: "Tell a long story.", max_tokens: 1000 };
  seen.aborted = await client.sessions
    .query(session.session_id, params, { signal: stop.signal })
    .catch((error: Error) => error.name);
  await client.sessions.delete(session.session_id);
}

async function chatsExample() {
  const session = await client.sessions.create({ type: "ohlcv", prompt: "You watch the market." });
  const id = session.session_id;
  await client.sessions.push(id, candles, { wait: true });
  const messages: Message[] = [{ role: "user", content: "Hello" }];
  const asked = { messages, session_id: id, max_tokens: 5, temperature: 0 };
  const direct = await client.sessions.query(id, { messages, max_tokens: 5 });
  const chat = await client.chat(asked);
  let chatStreamed = "";
  for await (const chunk of client.chatStream(asked)) {
    chatStreamed += chunk.choices[0]?.delta.content ?? "";
  }
  const message = await client.message(asked);
  let messageStreamed = "";
  for await (const chunk of client.messageStream(asked)) {
    if (chunk.type === "content_block_delta") messageStreamed += chunk.delta.text;
  }
  const completion = await client.complete({ prompt: "One, two, three,", max_tokens: 3 });
  seen.chats = {
    direct: direct.text,
    chat: chat.choices[0].message.content,
    chatStreamed,
    message: message.content[0].text,
    messageStreamed,
    completion,
    models: await client.models(),
  };
  await client.sessions.delete(id);
}

seen.health = await client.health();
await completeExample();
await sessionsExample();
await toolsExample();
await cancellationExample();
await chatsExample();
console.log(JSON.stringify(seen));
