// Runs a client that the AsyncAPI generator has made.
//
// Usage: generated.cjs DIRECTORY COUNT. Prints the `xid` of COUNT records, a line each.

const path = require("node:path");

const [, , directory, count] = process.argv;
const Client = require(path.resolve(directory, "client.js"));

const client = new Client();
let left = Number(count);
client.registerMessageHandler((message) => {
  for (const record of JSON.parse(message)) {
    if ("pos" in record && left) {
      console.log("xid", record.xid);
      left -= 1;
    }
  }
  if (!left) client.close();
});
client.connect().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
