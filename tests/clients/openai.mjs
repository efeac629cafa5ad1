// Every method of the published npm client against a running worker; one JSON line each.
// node openai.mjs NODE_MODULES URL SESSION_ID EMBEDDING_MODEL
import { createRequire } from "node:module";

const [modules, url, sessionId, embedder] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { OpenAI } = require("openai");

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 120_000 });
const model = (await client.models.list()).data[0].id;
const ASKED = "Name the capital of France.";
const messages = [{ role: "user", content: ASKED }];
const greedy = { model, temperature: 0, max_tokens: 8 };
const brief = { model, temperature: 0, max_output_tokens: 8 };
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};
const weather = { name: "get_weather", description: "The weather of a city", parameters };
const capital = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

async function all(stream) {
  const read = [];
  for await (const one of stream) read.push(one);
  return read;
}

const text = (chunks) => chunks.map((one) => one.choices[0]?.delta.content ?? "").join("");

async function kept() {
  return await client.chat.completions.create({ ...greedy, messages, store: true });
}

const methods = {
  "chat.completions.create": async () =>
    (await client.chat.completions.create({ ...greedy, messages })).choices[0].message.content,
  "chat.completions.create (stream)": async () => {
    const stream = await client.chat.completions.create({
      ...greedy,
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await all(stream);
    return { text: text(chunks), usage: chunks.at(-1).usage.completion_tokens };
  },
  "chat.completions.create (session_id)": async () => {
    const answer = await client.chat.completions.create(
      { ...greedy, messages: [{ role: "user", content: "Is the trend up or down?" }] },
      { headers: { "x-layerscale-session-id": sessionId } },
    );
    return { text: answer.choices[0].message.content, tokens: answer.usage.prompt_tokens };
  },
  "chat.completions.create (tools)": async () => {
    const answer = await client.chat.completions.create({
      ...greedy,
      max_tokens: 48,
      messages: [{ role: "user", content: "What is the weather in Paris?" }],
      tools: [{ type: "function", function: weather }],
      tool_choice: "required",
    });
    const [call] = answer.choices[0].message.tool_calls;
    return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
  },
  "chat.completions.stream": async () =>
    await client.chat.completions.stream({ ...greedy, messages }).finalContent(),
  "chat.completions.parse": async () => {
    const response_format = {
      type: "json_schema",
      json_schema: { name: "capital", strict: true, schema: capital },
    };
    const answer = await client.chat.completions.parse({
      ...greedy,
      max_tokens: 40,
      messages,
      response_format,
    });
    return JSON.parse(answer.choices[0].message.content);
  },
  "chat.completions.runTools": async () => {
    const asked = [];
    const runner = client.chat.completions.runTools(
      {
        ...greedy,
        max_tokens: 48,
        messages: [{ role: "user", content: "What is the weather in Paris?" }],
        tools: [
          {
            type: "function",
            function: {
              ...weather,
              parse: JSON.parse,
              function: ({ city }) => {
                asked.push(city);
                return "18 degrees";
              },
            },
          },
        ],
        tool_choice: { type: "function", function: { name: "get_weather" } },
      },
      { maxChatCompletions: 1 },
    );
    await runner.done();
    return asked;
  },
  "chat.completions.retrieve": async () => {
    const completion = await kept();
    const read = await client.chat.completions.retrieve(completion.id);
    return read.choices[0].message.content;
  },
  "chat.completions.update": async () => {
    const { id } = await kept();
    return (await client.chat.completions.update(id, { metadata: { run: "npm" } })).metadata;
  },
  "chat.completions.list": async () => {
    const listed = await all(client.chat.completions.list({ metadata: { run: "npm" } }));
    return listed.map((one) => one.choices[0].message.content);
  },
  "chat.completions.messages.list": async () => {
    const { id } = await kept();
    return (await all(client.chat.completions.messages.list(id))).map((one) => one.content);
  },
  "chat.completions.delete": async () => {
    const { id } = await kept();
    const { deleted } = await client.chat.completions.delete(id);
    const status = await client.chat.completions.retrieve(id).catch((error) => error.status);
    return { deleted, status };
  },
  "completions.create": async () =>
    (await client.completions.create({ ...greedy, prompt: "The capital of France is" })).choices[0]
      .text,
  "completions.create (stream)": async () => {
    const stream = await client.completions.create({
      ...greedy,
      prompt: "The capital of France is",
      stream: true,
    });
    return (await all(stream)).map((one) => one.choices[0].text).join("");
  },
  "embeddings.create": async () => {
    const answer = await client.embeddings.create({ model: embedder, input: ["up", "down"] });
    return answer.data.map((one) => one.embedding);
  },
  "models.list": async () => (await all(client.models.list())).map((one) => one.id),
  "models.retrieve": async () => (await client.models.retrieve(model)).id,
  "responses.create": async () =>
    (await client.responses.create({ ...brief, input: ASKED })).output_text,
  "responses.create (stream)": async () => {
    const stream = await client.responses.create({ ...brief, input: ASKED, stream: true });
    const events = await all(stream);
    const deltas = events.filter((one) => one.type === "response.output_text.delta");
    return { text: deltas.map((one) => one.delta).join(""), last: events.at(-1).type };
  },
  "responses.stream": async () =>
    (await client.responses.stream({ ...brief, input: ASKED }).finalResponse()).output_text,
  "responses.create (previous_response_id)": async () => {
    const first = await client.responses.create({ ...brief, input: "My name is Ada." });
    const second = await client.responses.create({
      ...brief,
      input: ASKED,
      previous_response_id: first.id,
    });
    return { first: first.output_text, second: second.output_text };
  },
  "responses.create (tools)": async () => {
    const answer = await client.responses.create({
      ...brief,
      max_output_tokens: 48,
      input: "What is the weather in Paris?",
      tools: [{ type: "function", strict: true, ...weather }],
      tool_choice: "required",
    });
    return { name: answer.output[0].name, arguments: JSON.parse(answer.output[0].arguments) };
  },
  "responses.parse": async () => {
    const format = { type: "json_schema", name: "capital", strict: true, schema: capital };
    const answer = await client.responses.parse({
      ...brief,
      max_output_tokens: 40,
      input: ASKED,
      text: { format },
    });
    return JSON.parse(answer.output_text);
  },
  "responses.retrieve": async () => {
    const { id } = await client.responses.create({ ...brief, input: ASKED });
    return (await client.responses.retrieve(id)).output_text;
  },
  "responses.inputItems.list": async () => {
    const { id } = await client.responses.create({ ...brief, input: ASKED });
    return (await all(client.responses.inputItems.list(id))).map((one) => one.content[0].text);
  },
  "responses.inputTokens.count": async () => {
    const response = await client.responses.create({ ...brief, input: ASKED });
    const counted = await client.responses.inputTokens.count({ model, input: ASKED });
    return { counted: counted.input_tokens, read: response.usage.input_tokens };
  },
  "responses.cancel": async () => {
    const { id } = await client.responses.create({ ...brief, input: ASKED });
    return await client.responses.cancel(id).catch((error) => error.status);
  },
  "responses.delete": async () => {
    const { id } = await client.responses.create({ ...brief, input: ASKED });
    await client.responses.delete(id);
    return await client.responses.retrieve(id).catch((error) => error.status);
  },
  "conversations.create": async () => {
    const { id } = await client.conversations.create({ items: messages });
    const items = await all(client.conversations.items.list(id));
    return items.map((one) => one.content[0].text);
  },
  "conversations.retrieve": async () => {
    const { id } = await client.conversations.create({ metadata: { a: "1" } });
    return (await client.conversations.retrieve(id)).metadata;
  },
  "conversations.update": async () => {
    const { id } = await client.conversations.create({ metadata: { a: "1" } });
    await client.conversations.update(id, { metadata: { a: "2" } });
    return (await client.conversations.retrieve(id)).metadata;
  },
  "conversations.delete": async () => {
    const { id } = await client.conversations.create();
    await client.conversations.delete(id);
    return await client.conversations.retrieve(id).catch((error) => error.status);
  },
  "responses.create (conversation)": async () => {
    const { id } = await client.conversations.create();
    const answer = await client.responses.create({ ...brief, input: ASKED, conversation: id });
    const items = await all(client.conversations.items.list(id, { order: "asc" }));
    return { said: answer.output_text, held: items.map((one) => one.content[0].text) };
  },
  "conversations.items.create": async () => {
    const { id } = await client.conversations.create();
    const added = await client.conversations.items.create(id, { items: messages });
    return added.data.map((one) => one.content[0].text);
  },
  "conversations.items.list": async () => {
    const { id } = await client.conversations.create({ items: [...messages, ...messages] });
    return (await all(client.conversations.items.list(id, { limit: 1 }))).length;
  },
  "conversations.items.retrieve": async () => {
    const { id } = await client.conversations.create({ items: messages });
    const [item] = await all(client.conversations.items.list(id));
    const read = await client.conversations.items.retrieve(item.id, { conversation_id: id });
    return read.content[0].text;
  },
  "conversations.items.delete": async () => {
    const { id } = await client.conversations.create({ items: messages });
    const [item] = await all(client.conversations.items.list(id));
    await client.conversations.items.delete(item.id, { conversation_id: id });
    return (await all(client.conversations.items.list(id))).length;
  },
};

for (const [method, run] of Object.entries(methods)) {
  let line;
  try {
    line = { method, value: await run() };
  } catch (error) {
    line = { method, error: String(error?.stack ?? error) };
  }
  console.log(JSON.stringify(line));
}
