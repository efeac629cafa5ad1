// Every method of llama-stack-client 0.3.0 that flashfeed answers.
// node llama_stack_0_3_0.mjs NODE_MODULES URL MODEL EMBEDDER
import { Client, all, embedder, model, push, run, url } from "./llama_stack_run.mjs";

const LlamaStackClient = Client("0.3.0");
const client = new LlamaStackClient({ baseURL: url, maxRetries: 0 });
const sampling_params = { strategy: { type: "greedy" }, max_tokens: 12 };
const agent_config = {
  model,
  instructions: "You watch machines. Answer briefly.",
  sampling_params,
};
const messages = [{ role: "user", content: "Say the number." }];
const chat = [
  { role: "system", content: "Answer briefly." },
  { role: "user", content: "What is the capital of France?" },
];
const { agents } = client;

const { agent_id } = await run("agents.create", () => agents.create({ agent_config }));
await run("agents.retrieve", () => agents.retrieve(agent_id));
await run("agents.list", () => agents.list({ limit: 1000 }));
const session = { session_name: "room 4", type: "iot" };
const { session_id } = await run("agents.session.create", () =>
  agents.session.create(agent_id, session),
);
await push(session_id);
const turn = await run("agents.turn.create", () =>
  agents.turn.create(agent_id, session_id, { messages }),
);
await run("agents.turn.create stream", async () =>
  all(await agents.turn.create(agent_id, session_id, { messages, stream: true })),
);
await run("agents.turn.retrieve", () =>
  agents.turn.retrieve(agent_id, session_id, turn.turn_id),
);
await run("agents.steps.retrieve", () =>
  agents.steps.retrieve(agent_id, session_id, turn.turn_id, turn.steps[0].step_id),
);
await run("agents.session.retrieve", () => agents.session.retrieve(agent_id, session_id));
await run("agents.session.list", () => agents.session.list(agent_id));

const weather = {
  name: "get_weather",
  description: "The weather of a city",
  parameters: [
    { name: "city", parameter_type: "string", description: "Where", required: true },
  ],
};
const tools = await agents.create({
  agent_config: {
    ...agent_config,
    client_tools: [weather],
    tool_config: { tool_choice: "get_weather" },
    sampling_params: { ...sampling_params, max_tokens: 40 },
  },
});
const question = { role: "user", content: "What is the weather in Rome?" };
for (const stream of [false, true]) {
  const { session_id: talk } = await agents.session.create(tools.agent_id, session);
  const waits = await agents.turn.create(tools.agent_id, talk, { messages: [question] });
  const [{ call_id, tool_name }] = waits.output_message.tool_calls;
  const tool_responses = [{ call_id, tool_name, content: "sunny" }];
  await run(stream ? "agents.turn.resume stream" : "agents.turn.resume", async () => {
    const body = { tool_responses, stream };
    const on = await agents.turn.resume(tools.agent_id, talk, waits.turn_id, body);
    return stream ? all(on) : on;
  });
}
await agents.delete(tools.agent_id);

const { inference } = client;
const asked = { model_id: model, sampling_params };
await run("inference.chatCompletion", () =>
  inference.chatCompletion({ ...asked, messages: chat, logprobs: { top_k: 1 } }),
);
await run("inference.chatCompletion stream", async () =>
  all(await inference.chatCompletion({ ...asked, messages: chat, stream: true })),
);
const content = "The capital of France is";
await run("inference.completion", () => inference.completion({ ...asked, content }));
await run("inference.completion stream", async () =>
  all(await inference.completion({ ...asked, content, stream: true })),
);
await run("inference.embeddings", () =>
  inference.embeddings({ model_id: embedder, contents: ["pump", "valve"] }),
);
await run("inference.batchChatCompletion", () =>
  inference.batchChatCompletion({ ...asked, messages_batch: [chat, chat] }),
);
await run("inference.batchCompletion", () =>
  inference.batchCompletion({ ...asked, content_batch: [content] }),
);

const max_tokens = 12;
const temperature = 0;
const completion = await run("chat.completions.create", () =>
  client.chat.completions.create({ model, messages: chat, max_tokens, temperature, store: true }),
);
await run("chat.completions.create stream", async () =>
  all(
    await client.chat.completions.create({
      model, messages: chat, max_tokens, temperature, stream: true,
    }),
  ),
);
await run("chat.completions.retrieve", () => client.chat.completions.retrieve(completion.id));
await run("chat.completions.list", async () =>
  (await client.chat.completions.list({ limit: 100 })).data,
);
await run("completions.create", () =>
  client.completions.create({ model, prompt: content, max_tokens, temperature }),
);
await run("completions.create stream", async () =>
  all(
    await client.completions.create({
      model, prompt: content, max_tokens, temperature, stream: true,
    }),
  ),
);
await run("embeddings.create", () =>
  client.embeddings.create({ model: embedder, input: ["pump", "valve"], encoding_format: "float" }),
);
const said = { model, input: "What is the capital of France?", temperature: 0, max_output_tokens: 16 };
const response = await run("responses.create", () => client.responses.create(said));
await run("responses.create stream", async () =>
  all(await client.responses.create({ ...said, stream: true })),
);
await run("responses.retrieve", () => client.responses.retrieve(response.id));
await run("responses.list", async () => (await client.responses.list({ limit: 100 })).data);
await run("responses.inputItems.list", () => client.responses.inputItems.list(response.id));
await run("responses.delete", () => client.responses.delete(response.id));

await run("models.list", () => client.models.list());
await run("models.retrieve", () => client.models.retrieve(model));
await run("models.register", () => client.models.register({ model_id: model }));
await run("models.unregister", () => client.models.unregister(model));
await run("models.openai.list", () => client.models.openai.list());
await run("inspect.health", () => client.inspect.health());
await run("inspect.version", () => client.inspect.version());
await run("routes.list", () => client.routes.list());
await run("providers.list", () => client.providers.list());
await run("providers.retrieve", () => client.providers.retrieve("flashfeed"));
await run("tools.list", () => client.tools.list());
await run("toolgroups.list", () => client.toolgroups.list());
await run("toolRuntime.listTools", () => client.toolRuntime.listTools());
await run("shields.list", () => client.shields.list());

for (const [method, ask] of Object.entries({
  "datasets.list": () => client.datasets.list(),
  "vectorDBs.list": () => client.vectorDBs.list(),
  "vectorStores.list": () => client.vectorStores.list(),
  "files.list": () => client.files.list(),
  "safety.runShield": () => client.safety.runShield({ messages, params: {}, shield_id: "s" }),
  "moderations.create": () => client.moderations.create({ input: "x", model }),
  "inference.rerank": () => inference.rerank({ items: ["a"], model, query: "b" }),
  "benchmarks.list": () => client.benchmarks.list(),
  "tools.get": () => client.tools.get("t"),
})) await run(`absent ${method}`, ask);

await run("agents.session.delete", () => agents.session.delete(agent_id, session_id));
await run("agents.session.retrieve deleted", () => agents.session.retrieve(agent_id, session_id));
await run("agents.delete", () => agents.delete(agent_id));
await run("agents.retrieve deleted", () => agents.retrieve(agent_id));
