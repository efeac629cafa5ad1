// Every method of llama-stack-client 0.7.3 that flashfeed answers. It has no agents: what
// it asks of a live session it names in `session_id`.
// node llama_stack_0_7_3.mjs NODE_MODULES URL MODEL EMBEDDER
import { Client, all, embedder, model, push, run, url } from "./llama_stack_run.mjs";

const LlamaStackClient = Client("0.7.3");
const client = new LlamaStackClient({ baseURL: url, maxRetries: 0 });
const max_tokens = 12;
const temperature = 0;
const chat = [
  { role: "system", content: "Answer briefly." },
  { role: "user", content: "What is the capital of France?" },
];
const prompt = "The capital of France is";
const { completions } = client.chat;

const made = await client.post("/v1/sessions/init", {
  body: { type: "iot", prompt: "You watch machines. Answer briefly." },
});
const { session_id } = made;
await push(session_id);
const messages = [{ role: "user", content: "Say the number." }];
await run("live session", () =>
  completions.create({ model, messages, max_tokens, temperature, session_id }),
);
await run("live session deleted", async () => {
  await client.delete(`/v1/sessions/${session_id}`);
  return completions.create({ model, messages, max_tokens, temperature, session_id });
});

const asked = { model, messages: chat, max_tokens, temperature };
const completion = await run("chat.completions.create", () =>
  completions.create({ ...asked, store: true }),
);
await run("chat.completions.create stream", async () =>
  all(await completions.create({ ...asked, stream: true })),
);
await run("chat.completions.retrieve", () => completions.retrieve(completion.id));
await run("chat.completions.list", async () => (await completions.list({ limit: 100 })).data);
await run("completions.create", () =>
  client.completions.create({ model, prompt, max_tokens, temperature }),
);
await run("completions.create stream", async () =>
  all(await client.completions.create({ model, prompt, max_tokens, temperature, stream: true })),
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

const item = { type: "message", role: "user", content: "Hello" };
const conversation = await run("conversations.create", () =>
  client.conversations.create({ items: [item], metadata: { room: "4" } }),
);
const id = conversation?.id;
await run("conversations.retrieve", () => client.conversations.retrieve(id));
await run("conversations.update", () =>
  client.conversations.update(id, { metadata: { room: "5" } }),
);
const items = await run("conversations.items.create", () =>
  client.conversations.items.create(id, { items: [{ ...item, content: "Again" }] }),
);
await run("conversations.items.list", async () =>
  (await client.conversations.items.list(id, { order: "asc" })).data,
);
const item_id = items?.data[0].id;
await run("conversations.items.get", () => client.conversations.items.get(id, item_id));
await run("conversations.items.delete", () => client.conversations.items.delete(id, item_id));
await run("conversations.delete", () => client.conversations.delete(id));

await run("models.list", () => client.models.list());
await run("models.retrieve", () => client.models.retrieve(model));
await run("models.openai.list", () => client.models.openai.list());
await run("inspect.health", () => client.inspect.health());
await run("inspect.version", () => client.inspect.version());
await run("routes.list", () => client.routes.list());
await run("routes.list v1alpha", () => client.routes.list({ api_filter: "v1alpha" }));
await run("providers.list", () => client.providers.list());
await run("providers.retrieve", () => client.providers.retrieve("flashfeed"));
await run("shields.list", () => client.shields.list());
const { admin } = client.alpha;
await run("alpha.admin.health", () => admin.health());
await run("alpha.admin.version", () => admin.version());
await run("alpha.admin.listRoutes", () => admin.listRoutes({ api_filter: "v1" }));
await run("alpha.admin.listProviders", () => admin.listProviders());
await run("alpha.admin.inspectProvider", () => admin.inspectProvider("flashfeed"));

for (const [method, ask] of Object.entries({
  "prompts.list": () => client.prompts.list(),
  "batches.list": () => client.batches.list(),
  "files.list": () => client.files.list(),
  "vectorStores.list": () => client.vectorStores.list(),
  "beta.datasets.list": () => client.beta.datasets.list(),
  "alpha.benchmarks.list": () => client.alpha.benchmarks.list(),
  "alpha.inference.rerank": () => client.alpha.inference.rerank({ items: ["a"], model, query: "b" }),
  "safety.runShield": () => client.safety.runShield({ messages, params: {}, shield_id: "s" }),
})) await run(`absent ${method}`, ask);
