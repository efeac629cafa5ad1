// The page of LayerScale's TypeScript client, run in its order, and its full example. What
// came of each step is printed as one JSON object for the test that runs this.

import { LayerScale } from "./layerscale.js";

const client = new LayerScale(process.argv[2]!);
const seen: Record<string, unknown> = {};

async function page() {
  const session = await client.createSession({
    type: "ohlcv",
    prompt: "You are a financial analyst. Analyze incoming market data.",
    flash: [
      { query: "Is the trend bullish or bearish?", max_tokens: 4 },
      { query: "What is the current support level?", max_tokens: 4 },
    ],
  });
  const id = session.session_id;
  const pushed = await client.push(id, [
    { o: 185.5, h: 186.2, l: 185.1, c: 185.8, v: 12500 },
    { o: 185.8, h: 186.5, l: 185.6, c: 186.3, v: 8700 },
  ]);
  const result = await client.generate(id, {
    prompt: "What's the trend over the last hour?",
    max_tokens: 8,
  });
  // The push did not wait: what is compared below is asked of the same data.
  while ((await client.streamStatus(id)).streaming.queue_size > 0) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  let streamed = "";
  for await (const chunk of client.generateStream(id, { prompt: "Describe the price action.", max_tokens: 8 })) {
    if (chunk.token) streamed += chunk.token;
  }
  const described = await client.generate(id, { prompt: "Describe the price action.", max_tokens: 8 });

  const events: unknown[] = [];
  let written = false;
  for await (const event of client.events(id)) {
    events.push(event);
    if (event.type === "connected" && !written) {
      written = true;
      await client.push(id, [{ o: 186.3, h: 187.0, l: 186.1, c: 186.9, v: 9100 }]);
    }
    if (event.type === "data_updated") break;
  }
  const status = await client.streamStatus(id);
  const stats = await client.stats(id);
  seen.page = { created: session, pushed, result, streamed, described: described.text, events, status, stats };
  await client.deleteSession(id);
}

async function otherTypes() {
  const types = {
    iot: [{ sid: "temp-01", val: 72.5, lo: 60.0, hi: 85.0 }],
    vitals: [{ hr: 72.0, bp_s: 120.0, bp_d: 80.0, spo2: 98.5, temp: 36.8 }],
  } as const;
  for (const [type, records] of Object.entries(types)) {
    const session = await client.createSession({ type: type as keyof typeof types });
    await client.push(session.session_id, [...records], { wait: true });
    seen[type] = await client.stats(session.session_id);
    await client.deleteSession(session.session_id);
  }
}

async function fullExample() {
  const session = await client.createSession({
    type: "ohlcv",
    prompt: "Monitor ETH/USD for breakout signals.",
    flash: [
      { query: "Is a breakout imminent?", max_tokens: 4 },
      { query: "What's the key resistance level?", max_tokens: 4 },
    ],
  });
  const socket = client.stream(session.session_id);
  const frames: Record<string, unknown>[] = [];
  let price = 3400;
  await new Promise<void>((resolve, reject) => {
    const record = (type: string) => (data: object) => frames.push({ type, ...data });
    for (const type of ["connected", "push_ack", "flash_ready"]) socket.on(type, record(type));
    socket.on("error", reject);
    socket.on("data_updated", (data) => {
      record("data_updated")(data);
      if (data.data_count >= 3) socket.close();
    });
    socket.on("close", () => resolve());
    socket.on("open", () => {
      const timer = setInterval(() => {
        price += 5;
        socket.push([{ o: price - 5, h: price + 1, l: price - 6, c: price, v: 100 }]);
        if (price >= 3415) clearInterval(timer);
      }, 100);
    });
  });
  seen.full = { frames, stats: await client.stats(session.session_id) };
  await client.deleteSession(session.session_id);
}

await page();
await otherTypes();
await fullExample();
console.log(JSON.stringify(seen));
