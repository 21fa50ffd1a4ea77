// Does with the code that protoc makes for C++ what a C++ client does, and prints what it saw as
// JSON. Usage: infer ADDRESS
#include <chrono>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>

#include <grpcpp/grpcpp.h>

#include "grpc_service.grpc.pb.h"

namespace {

using inference::GRPCInferenceService;

// The numbers from 0 to 15, twice.
inference::ModelInferRequest request(const std::string& model) {
  inference::ModelInferRequest asked;
  asked.set_model_name(model);
  asked.set_id("one");
  for (const char* name : {"INPUT0", "INPUT1"}) {
    auto* input = asked.add_inputs();
    input->set_name(name);
    input->set_datatype("INT32");
    input->add_shape(1);
    input->add_shape(16);
    for (int number = 0; number < 16; number++) {
      input->mutable_contents()->add_int_contents(number);
    }
  }
  return asked;
}

void limit(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
}

grpc::Status infer(GRPCInferenceService::Stub& client, const std::string& model,
                   inference::ModelInferResponse& answer) {
  grpc::ClientContext context;
  limit(context);
  return client.ModelInfer(&context, request(model), &answer);
}

std::string quoted(const std::string& text) {
  std::string written = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') written += '\\';
    written += letter;
  }
  return written + '"';
}

void print_numbers(const std::string& raw) {
  for (std::size_t place = 0; place + 4 <= raw.size(); place += 4) {
    std::int32_t number = 0;
    std::memcpy(&number, raw.data() + place, 4);
    std::cout << (place == 0 ? "" : ",") << number;
  }
}

int failed(const grpc::Status& status) {
  std::cerr << status.error_code() << " " << status.error_message() << "\n";
  return 1;
}

}  // namespace

int main(int, char** arguments) {
  const auto channel = grpc::CreateChannel(arguments[1], grpc::InsecureChannelCredentials());
  const auto client = GRPCInferenceService::NewStub(channel);

  inference::ModelMetadataRequest about;
  about.set_name("add_sub");
  inference::ModelMetadataResponse metadata;
  grpc::ClientContext context;
  limit(context);
  const auto described = client->ModelMetadata(&context, about, &metadata);
  if (!described.ok()) return failed(described);
  inference::ModelInferResponse answer;
  const auto answered = infer(*client, "add_sub", answer);
  if (!answered.ok()) return failed(answered);
  inference::ModelInferResponse none;
  const auto failure = infer(*client, "nowhere", none);

  std::cout << "{\"inputs\":[";
  for (int place = 0; place < metadata.inputs_size(); place++) {
    const auto& input = metadata.inputs(place);
    std::cout << (place == 0 ? "" : ",") << quoted(input.name() + " " + input.datatype());
  }
  std::cout << "],\"id\":" << quoted(answer.id()) << ",\"sum\":[";
  print_numbers(answer.raw_output_contents(0));
  std::cout << "],\"code\":" << failure.error_code()
            << ",\"message\":" << quoted(failure.error_message()) << "}\n";
}
