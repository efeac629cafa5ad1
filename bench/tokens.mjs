// How many tokens other models' tokenizers make of lines. Their vocabularies come with the npm
// packages; nothing is fetched. In: a JSON list of texts. Out: {tokenizer: [count, ...]}.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.argv[2] + "/"));
const gpt = require("gpt-tokenizer/encoding/o200k_base");
const claude = require("@anthropic-ai/tokenizer").getTokenizer();
const llama = (await import(pathToFileURL(require.resolve("llama3-tokenizer-js")))).default;

const texts = JSON.parse(readFileSync(0, "utf8"));
const counts = {
  llama3: texts.map((text) => llama.encode(text, { bos: false, eos: false }).length),
  o200k: texts.map((text) => gpt.encode(text).length),
  claude2: texts.map((text) => claude.encode(text).length),
};
claude.free();
process.stdout.write(JSON.stringify(counts));
