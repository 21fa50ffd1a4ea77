// Does with the code that protoc makes for Go what a Go client does, and prints what it saw as JSON.
// Usage: go run . ADDRESS
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"jitney.example/client/inference"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	defer connection.Close()
	client := inference.NewGRPCInferenceServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	metadata, err := client.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: "add_sub"})
	check(err)
	answer, err := client.ModelInfer(ctx, request("add_sub"))
	check(err)
	_, failure := client.ModelInfer(ctx, request("nowhere"))

	inputs := []string{}
	for _, input := range metadata.Inputs {
		inputs = append(inputs, input.Name+" "+input.Datatype)
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"inputs":  inputs,
		"id":      answer.Id,
		"sum":     numbers(answer.RawOutputContents[0]),
		"code":    int(status.Code(failure)),
		"message": status.Convert(failure).Message(),
	}))
}

// The numbers from 0 to 15, twice.
func request(model string) *inference.ModelInferRequest {
	row := []int32{}
	for number := range int32(16) {
		row = append(row, number)
	}
	asked := &inference.ModelInferRequest{ModelName: model, Id: "one"}
	for _, name := range []string{"INPUT0", "INPUT1"} {
		asked.Inputs = append(asked.Inputs, &inference.ModelInferRequest_InferInputTensor{
			Name: name, Datatype: "INT32", Shape: []int64{1, 16},
			Contents: &inference.InferTensorContents{IntContents: row},
		})
	}
	return asked
}

func numbers(raw []byte) []int32 {
	row := make([]int32, len(raw)/4)
	check(binary.Read(bytes.NewReader(raw), binary.LittleEndian, row))
	return row
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
