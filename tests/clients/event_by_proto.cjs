// Prints a Protobuf message as JSON, by the text of its .proto file: FILE MESSAGE VALUE_FILE.
const fs = require("node:fs");
const protobuf = require("protobufjs");

const [proto, message, value] = process.argv.slice(2);
const { root } = protobuf.parse(fs.readFileSync(proto, "utf8"), { keepCase: true });
const type = root.lookupType(`flashfeed.${message}`);
const read = type.decode(fs.readFileSync(value));
const plain = type.toObject(read, { defaults: true, arrays: true, objects: true, longs: Number });
for (const field of ["previous", "event_time"]) plain[field] ??= null;
process.stdout.write(JSON.stringify(plain));
