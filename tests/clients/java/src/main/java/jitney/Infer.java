package jitney;

import inference.GRPCInferenceServiceGrpc;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub;
import inference.GrpcService.InferTensorContents;
import inference.GrpcService.ModelInferRequest;
import inference.GrpcService.ModelInferRequest.InferInputTensor;
import inference.GrpcService.ModelMetadataRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.nio.ByteOrder;
import java.nio.IntBuffer;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * Does with the code that protoc makes for Java what a Java client does, and prints what it saw as
 * JSON. Its argument is the server's address.
 */
public final class Infer {
  public static void main(String[] arguments) {
    var channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
    var client = GRPCInferenceServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(1, TimeUnit.MINUTES);

    var metadata = client.modelMetadata(ModelMetadataRequest.newBuilder().setName("add_sub").build());
    var answer = client.modelInfer(request("add_sub"));
    var failure = failure(client);

    var inputs = metadata.getInputsList().stream()
        .map(input -> quoted(input.getName() + " " + input.getDatatype()))
        .collect(Collectors.joining(","));
    var sum = answer.getRawOutputContents(0).asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    System.out.printf("{\"inputs\":[%s],\"id\":%s,\"sum\":[%s],\"code\":%d,\"message\":%s}%n",
        inputs, quoted(answer.getId()), numbers(sum.asIntBuffer()), failure.getCode().value(),
        quoted(failure.getDescription()));
    channel.shutdownNow();
  }

  /** The numbers from 0 to 15, twice. */
  private static ModelInferRequest request(String model) {
    var row = InferTensorContents.newBuilder()
        .addAllIntContents(() -> IntStream.range(0, 16).iterator());
    var asked = ModelInferRequest.newBuilder().setModelName(model).setId("one");
    for (var name : new String[] {"INPUT0", "INPUT1"}) {
      asked.addInputs(InferInputTensor.newBuilder()
          .setName(name).setDatatype("INT32").addShape(1).addShape(16).setContents(row));
    }
    return asked.build();
  }

  private static Status failure(GRPCInferenceServiceBlockingStub client) {
    try {
      client.modelInfer(request("nowhere"));
      return Status.OK.withDescription("");
    } catch (StatusRuntimeException error) {
      return error.getStatus();
    }
  }

  private static String numbers(IntBuffer numbers) {
    return IntStream.range(0, numbers.remaining())
        .mapToObj(place -> String.valueOf(numbers.get(place)))
        .collect(Collectors.joining(","));
  }

  private static String quoted(String text) {
    return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
  }

  private Infer() {}
}
