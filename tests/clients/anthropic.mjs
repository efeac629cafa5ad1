// Every method of @anthropic-ai/sdk that the bridge serves: one JSON line a method.
// node anthropic.mjs NODE_MODULES URL MODEL
import { createRequire } from "node:module";

const [, , modules, baseURL, model] = process.argv;
const require = createRequire(`${modules}/`);
const Anthropic = require(`${modules}/@anthropic-ai/sdk`).default;
const client = new Anthropic({ apiKey: "key", baseURL, maxRetries: 0 });

const messages = [{ role: "user", content: "What is the capital of France?" }];
const asked = { model, max_tokens: 8, messages, temperature: 0 };
const tools = [
  {
    name: "price",
    description: "The last price of a stock.",
    input_schema: {
      type: "object",
      properties: { symbol: { type: "string", enum: ["AAPL", "MSFT"] } },
      required: ["symbol"],
      additionalProperties: false,
    },
  },
];

const text = (message) => message.content.map((block) => block.text ?? "").join("");
const read = (usage) => usage.input_tokens + usage.cache_read_input_tokens;
const line = (message, request_id) => ({
  text: text(message),
  stop_reason: message.stop_reason,
  read: read(message.usage),
  request_id,
});

const methods = {
  "messages.create": async () => {
    const message = await client.messages.create(asked);
    return line(message, message._request_id);
  },
  "messages.create({stream: true})": async () => {
    const { data, request_id } = await client.messages
      .create({ ...asked, stream: true })
      .withResponse();
    const message = { content: [{ text: "" }] };
    for await (const event of data) {
      if (event.type === "message_start") message.usage = event.message.usage;
      if (event.type === "content_block_delta") message.content[0].text += event.delta.text;
      if (event.type === "message_delta") message.stop_reason = event.delta.stop_reason;
    }
    return line(message, request_id);
  },
  "messages.stream": async () => {
    const stream = client.messages.stream(asked);
    let heard = "";
    stream.on("text", (delta) => { heard += delta; });
    const message = await stream.finalMessage();
    if (heard !== text(message)) throw new Error(`heard ${heard}`);
    return line(message, stream.request_id);
  },
  "messages.countTokens": () => client.messages.countTokens({ model, messages }),
  "models.list": async () => {
    const ids = [];
    for await (const one of client.models.list()) ids.push(one.id);
    return { id: ids.find((id) => id === model) };
  },
  "models.retrieve": async () => ({ id: (await client.models.retrieve(model)).id }),
  "messages.create (tools)": async () => {
    const question = { role: "user", content: "What is the price of AAPL?" };
    const body = { ...asked, max_tokens: 60, tools, messages: [question] };
    const message = await client.messages.create({ ...body, tool_choice: { type: "any" } });
    const call = message.content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: "4711 dollars" };
    const turns = [
      question,
      { role: "assistant", content: message.content },
      { role: "user", content: [result] },
    ];
    const answer = await client.messages.create({ ...body, max_tokens: 8, messages: turns });
    return { call, answer: text(answer) };
  },
  "messages.create (unknown model)": async () => {
    const error = await client.messages.create({ ...asked, model: "none" }).catch((e) => e);
    return { error: error.constructor.name, type: error.type };
  },
};

for (const [method, run] of Object.entries(methods)) {
  const outcome = await run().catch((error) => ({ failed: String(error?.stack ?? error) }));
  console.log(JSON.stringify({ method, ...outcome }));
}
