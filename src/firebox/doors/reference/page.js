"use strict";
// Shows the description of the API, and sends requests to the server that it came from.
// Texts of the description and of answers go in as text, never as markup: programs may print anything.

const SHOWN_CHARACTERS = 1000000;
const token = make("input", { type: "password", autocomplete: "off", placeholder: "none", id: "token" });

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined));
  return node;
}

function words(text) {  // `code` in backquotes
  return String(text || "").split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

// Schemas

function nameOf(reference) { return reference.split("/").pop(); }

function typeOf(schema) {
  if (!schema) return ["nothing"];
  if (schema.$ref) return [make("a", { href: "#type-" + nameOf(schema.$ref) }, nameOf(schema.$ref))];
  const choices = schema.oneOf || schema.anyOf || schema.allOf;
  if (choices) return choices.flatMap((choice, index) => (index ? [" or ", ...typeOf(choice)] : typeOf(choice)));
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(", ")];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items || {})];
  if (schema.type === "object" && schema.additionalProperties) return ["map to ", ...typeOf(schema.additionalProperties)];
  return [[].concat(schema.type || "anything").join(" or ")];
}

function rows(entries) {
  return make("table", {}, entries.map(([name, type, text]) =>
    make("tr", {}, make("td", {}, make("code", {}, name)), make("td", {}, type), make("td", {}, words(text)))));
}

function contentOf(body) {
  return Object.entries((body && body.content) || {}).flatMap(([media, item]) => [media + ": ", ...typeOf(item.schema), " "]);
}

function type(name, schema) {
  const required = new Set(schema.required || []);
  const fields = Object.entries(schema.properties || {}).map(([field, one]) =>
    [field + (required.has(field) ? "" : "?"), typeOf(one), one.description]);
  return make("details", { id: "type-" + name }, make("summary", {}, make("span", { className: "path" }, name)),
    make("p", {}, words(schema.description)), fields.length ? rows(fields) : make("p", {}, typeOf(schema)));
}

// Trying out

function addressOf(path, parameters) {
  const query = new URLSearchParams();
  for (const { one, input } of parameters) {
    if (one.in === "path") path = path.replace(`{${one.name}}`, encodeURIComponent(input.value));
    else if (one.in === "query" && input.value) query.set(one.name, input.value);
  }
  return path + (query.size ? "?" + query : "");
}

function headersOf(parameters, hasBody, accept) {
  const headers = { Accept: accept };
  if (hasBody) headers["Content-Type"] = "application/json";
  if (token.value) headers.Authorization = "Bearer " + token.value;
  for (const { one, input } of parameters) if (one.in === "header" && input.value) headers[one.name] = input.value;
  return headers;
}

async function showAnswer(answer, startedAt, output) {
  const head = make("p", { className: answer.ok ? "status" : "status failed" }, `${answer.status} ${answer.statusText}`);
  const text = make("pre", {});
  output.replaceChildren(head, text);
  const decoder = new TextDecoder();
  const reader = answer.body ? answer.body.getReader() : null;
  let content = "";
  for (let part; reader && content.length < SHOWN_CHARACTERS && !(part = await reader.read()).done;) {
    content += decoder.decode(part.value, { stream: true });
    text.textContent = content;  // a stream is shown as it comes
  }
  if (content.length >= SHOWN_CHARACTERS) {
    await reader.cancel();
    content = content.slice(0, SHOWN_CHARACTERS) + "\n...";
  }
  head.append(`, ${Math.round(performance.now() - startedAt)} ms, ${answer.headers.get("content-type") || "no content"}`);
  const json = (answer.headers.get("content-type") || "").includes("json");
  try { text.textContent = json ? JSON.stringify(JSON.parse(content), null, 2) : content; } catch { text.textContent = content; }
  const place = answer.headers.get("location");
  if (place) head.append(", at " + place);
}

function trial(path, method, item) {
  const parameters = (item.parameters || []).map((one) => ({
    one,
    input: make("input", { name: one.name, required: one.in === "path", value: one.in === "path" ? String(one.example || "") : "" }),
  }));
  const content = item.requestBody && item.requestBody.content["application/json"];
  const examples = Object.values((content && content.examples) || {});
  const body = content ? make("textarea", { name: "body", spellcheck: false }) : null;
  const fill = (index) => { body.value = JSON.stringify(examples.length ? examples[index].value : {}, null, 2); };
  const choice = examples.length > 1 ? make("select", { name: "example" },
    examples.map((example, index) => make("option", { value: index }, example.summary))) : null;
  if (choice) choice.onchange = () => fill(Number(choice.value));
  if (body) fill(0);
  const output = make("output", {});
  const stop = make("button", { type: "button", hidden: true }, "Stop");
  const send = make("button", { type: "submit" }, "Send");
  const form = make("form", {},
    parameters.map(({ one, input }) => make("label", {}, one.name, input)),
    choice ? make("label", {}, "Example", choice) : null,
    body ? make("label", {}, "Body", body) : null,
    send, stop, output);
  form.onsubmit = async (event) => {
    event.preventDefault();
    const abort = new AbortController();
    stop.onclick = () => abort.abort();
    stop.hidden = false;
    send.disabled = true;
    output.replaceChildren(make("p", {}, "Waiting for the answer"));
    const startedAt = performance.now();
    const accept = Object.keys((item.responses["200"] || {}).content || { "*/*": {} })[0];
    try {
      const answer = await fetch(addressOf(path, parameters), {
        method: method.toUpperCase(), headers: headersOf(parameters, body !== null, accept),
        body: body ? body.value : undefined, signal: abort.signal, credentials: "omit", cache: "no-store",
      });
      await showAnswer(answer, startedAt, output);
    } catch (error) {
      output.append(make("p", { className: "status failed" }, abort.signal.aborted ? "Stopped" : String(error)));
    } finally {
      stop.hidden = true;
      send.disabled = false;
    }
  };
  return form;
}

// The page

function operation(path, method, item) {
  const parameters = (item.parameters || []).map((one) => [one.name, [one.in], one.description]);
  const responses = Object.entries(item.responses || {}).map(([status, one]) => [status, contentOf(one), one.description]);
  const node = make("details", { id: item.operationId },
    make("summary", {}, make("span", { className: "method " + method }, method), make("span", { className: "path" }, path),
      " ", item.summary || ""));
  node.addEventListener("toggle", () => {  // what is in it is made when it is first looked at
    if (node.open && node.childElementCount === 1) node.append(
      make("p", {}, words(item.description)),
      parameters.length ? rows(parameters) : "",
      item.requestBody ? make("p", {}, "Body: ", contentOf(item.requestBody)) : "",
      trial(path, method, item),
      rows(responses));
  });
  return node;
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
}

async function show() {
  const api = await (await fetch("/schema/openapi.json")).json();
  const sections = api.tags.map((tag) => ({ tag, items: [] }));
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, item] of Object.entries(methods))
      sections.find(({ tag }) => tag.name === item.tags[0]).items.push([path, method, item]);
  document.getElementById("contents").replaceChildren(...sections.flatMap(({ tag, items }) => [
    make("h3", {}, make("a", { href: "#tag-" + tag.name }, tag.name)),
    ...items.map(([, , item]) => make("a", { href: "#" + item.operationId }, item.summary)),
  ]), make("h3", {}, make("a", { href: "#types" }, "types")));
  document.getElementById("page").replaceChildren(
    make("h1", {}, api.info.title + " " + api.info.version),
    make("p", {}, words(api.info.description), " ", make("a", { href: "/schema/openapi.json" }, "openapi.json")),
    make("form", { onsubmit: (event) => event.preventDefault() }, make("label", { htmlFor: "token" }, "Token", token)),
    ...sections.flatMap(({ tag, items }) => [
      make("h2", { id: "tag-" + tag.name }, tag.name), make("p", {}, words(tag.description)),
      ...items.map((one) => operation(...one))]),
    make("h2", { id: "types" }, "types"),
    ...Object.entries(api.components.schemas).map(([name, one]) => type(name, one)));
  openTarget();
}

addEventListener("hashchange", openTarget);
show().catch((error) => { document.getElementById("page").textContent = "The description could not be read: " + error; });
