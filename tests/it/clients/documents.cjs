// What the ecosystem makes of an AsyncAPI document.
//
// Usage: documents.cjs parse FILE… | generate GENERATOR TEMPLATE FILE DIRECTORY [NAME=VALUE…]

const fs = require("node:fs");
const path = require("node:path");

async function parse(files) {
  const { Parser } = require("@asyncapi/parser");
  for (const file of files) {
    const { document, diagnostics } = await new Parser().parse(fs.readFileSync(file, "utf8"));
    // 0 is an error, 1 a warning; what is below is advice.
    const wrong = diagnostics.filter((diagnostic) => diagnostic.severity <= 0);
    if (!document || wrong.length) {
      console.error(file, JSON.stringify(wrong, null, 2));
      process.exit(1);
    }
    console.log(path.basename(file), document.version(), document.channels().length);
  }
}

async function generate([generator, template, file, directory, ...parameters]) {
  const Generator = require(generator);
  const templateParams = Object.fromEntries(parameters.map((text) => text.split("=")));
  const options = { forceWrite: true, templateParams };
  await new Generator(template, path.resolve(directory), options).generateFromFile(path.resolve(file));
}

const [, , command, ...rest] = process.argv;
const commands = { parse, generate };
commands[command](rest).catch((error) => {
  console.error(error);
  process.exit(1);
});
