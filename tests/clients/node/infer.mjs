// Does with @grpc/grpc-js and the proto file what a Node.js client does, and prints what it saw as
// JSON. Usage: node infer.mjs ADDRESS PROTO
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, proto] = process.argv.slice(2);
const definition = loader.loadSync(proto, { keepCase: true, longs: String, enums: String, oneofs: true });
const { inference } = grpc.loadPackageDefinition(definition);
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());

const deadline = () => ({ deadline: Date.now() + 60_000 });
const call = (method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, deadline(), (error, answer) => (error ? reject(error) : resolve(answer))));

const floats = (numbers) => Buffer.from(new Float32Array(numbers).buffer);
const numbers = (bytes) => Array.from(new Float32Array(new Uint8Array(bytes).buffer));
const request = (id, row) => ({
  model_name: "identity_fp32",
  id,
  inputs: [{ name: "INPUT0", datatype: "FP32", shape: [1, row.length] }],
  raw_input_contents: [floats(row)],
});

const metadata = await call("ModelMetadata", { name: "identity_fp32" });
const answer = await call("ModelInfer", request("one", [1, 2.5, -3]));
const typed = await call("ModelInfer", {
  model_name: "identity_fp32",
  inputs: [{ name: "INPUT0", datatype: "FP32", shape: [1, 2], contents: { fp32_contents: [7, 8] } }],
});
const failure = await call("ModelInfer", { model_name: "nowhere" }).catch((error) => error);

const streamed = await new Promise((resolve, reject) => {
  const answers = [];
  const stream = client.ModelStreamInfer(deadline());
  stream.on("data", (message) =>
    answers.push(message.error_message || numbers(message.infer_response.raw_output_contents[0])));
  stream.on("error", reject);
  stream.on("end", () => resolve(answers));
  stream.write(request("first", [1]));
  stream.write({ ...request("second", [2]), model_name: "nowhere" });
  stream.write(request("third", [3]));
  stream.end();
});

console.log(JSON.stringify({
  inputs: metadata.inputs,
  id: answer.id,
  shape: answer.outputs[0].shape,
  row: numbers(answer.raw_output_contents[0]),
  typed: numbers(typed.raw_output_contents[0]),
  failure: { code: failure.code, details: failure.details },
  streamed,
}));
client.close();
