// Every method of llama-stack-client 0.0.35 that flashfeed answers.
// node llama_stack_0_0_35.mjs NODE_MODULES URL MODEL EMBEDDER
import { Client, all, embedder, model, push, run, url } from "./llama_stack_run.mjs";

const LlamaStackClient = Client("0.0.35");
const client = new LlamaStackClient({ baseURL: url, maxRetries: 0 });
const sampling_params = { strategy: "greedy", max_tokens: 12, temperature: 0, top_p: 0 };
const agent_config = {
  model,
  instructions: "You watch machines. Answer briefly.",
  enable_session_persistence: true,
  max_infer_iters: 4,
  sampling_params,
};
const messages = [{ role: "user", content: "Say the number." }];
const chat = [
  { role: "system", content: "Answer briefly." },
  { role: "user", content: "What is the capital of France?" },
];

const { agent_id } = await run("agents.create", () => client.agents.create({ agent_config }));
const session = { agent_id, session_name: "room 4", type: "iot" };
const { session_id } = await run("agents.sessions.create", () =>
  client.agents.sessions.create(session),
);
await push(session_id);
const turn = { agent_id, session_id, messages };
const asked = await run("agents.turns.create", () => client.agents.turns.create(turn));
const events = await run("agents.turns.create stream", async () =>
  all(await client.agents.turns.create({ ...turn, stream: true })),
);
const { turn_id, steps } = asked.event.payload.turn;
await run("agents.turns.retrieve", () => client.agents.turns.retrieve({ agent_id, turn_id }));
const step_id = steps[0].step_id;
await run("agents.steps.retrieve", () =>
  client.agents.steps.retrieve({ agent_id, turn_id, step_id }),
);
await run("agents.sessions.retrieve", () =>
  client.agents.sessions.retrieve({ agent_id, session_id }),
);
await run("agents.sessions.retrieve turn_ids", () =>
  client.agents.sessions.retrieve({ agent_id, session_id, turn_ids: [turn_id] }),
);

// A tool of the client's: the turn ends with the call, a new one brings what it gave.
const weather = {
  type: "function_call",
  function_name: "get_weather",
  description: "The weather of a city",
  parameters: { city: { param_type: "string", description: "Where", required: true } },
};
const tools = await client.agents.create({
  agent_config: {
    ...agent_config,
    tools: [weather],
    tool_choice: "required",
    sampling_params: { ...sampling_params, max_tokens: 40 },
  },
});
const talk = await client.agents.sessions.create({ agent_id: tools.agent_id, session_name: "w" });
const where = { agent_id: tools.agent_id, session_id: talk.session_id };
const called = await run("tool call", async () => {
  const question = { role: "user", content: "What is the weather in Rome?" };
  return all(await client.agents.turns.create({ ...where, messages: [question], stream: true }));
});
const [call] = called.at(-1).event.payload.turn.output_message.tool_calls;
await run("tool response", () => {
  const { call_id, tool_name } = call;
  const given = { role: "ipython", call_id, tool_name, content: "sunny" };
  return client.agents.turns.create({ ...where, messages: [given] });
});
await client.agents.delete({ agent_id: tools.agent_id });

await run("inference.chatCompletion", () =>
  client.inference.chatCompletion({ model, messages: chat, sampling_params, logprobs: { top_k: 1 } }),
);
await run("inference.chatCompletion stream", async () =>
  all(await client.inference.chatCompletion({ model, messages: chat, sampling_params, stream: true })),
);
const content = "The capital of France is";
await run("inference.completion", () =>
  client.inference.completion({ model, content, sampling_params }),
);
await run("inference.embeddings.create", () =>
  client.inference.embeddings.create({ model: embedder, contents: ["pump", ["valve", "open"]] }),
);
await run("batchInference.chatCompletion", () =>
  client.batchInference.chatCompletion({ model, messages_batch: [chat, chat], sampling_params }),
);
await run("batchInference.completion", () =>
  client.batchInference.completion({ model, content_batch: [content], sampling_params }),
);
await run("models.list", () => client.models.list());
await run("models.get", () => client.models.get({ core_model_id: model }));
await run("models.get unknown", () => client.models.get({ core_model_id: "nope" }));

for (const [method, ask] of Object.entries({
  "datasets.get": () => client.datasets.get({ dataset_uuid: "d" }),
  "memory.list": () => client.memory.list(),
  "memoryBanks.list": () => client.memoryBanks.list(),
  "safety.runShield": () => client.safety.runShield({ messages, params: {}, shield_type: "s" }),
  "shields.list": () => client.shields.list(),
  "evaluate.jobs.list": () => client.evaluate.jobs.list(),
  "postTraining.jobs.list": () => client.postTraining.jobs.list(),
  "telemetry.getTrace": () => client.telemetry.getTrace({ trace_id: "t" }),
})) await run(`absent ${method}`, ask);

await run("agents.sessions.delete", () => client.agents.sessions.delete({ agent_id, session_id }));
await run("agents.sessions.retrieve deleted", () =>
  client.agents.sessions.retrieve({ agent_id, session_id }),
);
await run("agents.delete", () => client.agents.delete({ agent_id }));
await run("agents.sessions.create deleted", () => client.agents.sessions.create(session));
