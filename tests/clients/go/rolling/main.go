// Asks servers, in turn, until its input ends, and prints what became of its requests as JSON.
// Usage: go run ./rolling ADDRESS,ADDRESS,... REQUESTS-A-SECOND SERVICE-CONFIG
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"jitney.example/client/inference"
)

func main() {
	known := manual.NewBuilderWithScheme("known")
	state := resolver.State{}
	for _, address := range strings.Split(os.Args[1], ",") {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	known.InitialState(state)
	rate, err := strconv.Atoi(os.Args[2])
	check(err)
	connection, err := grpc.NewClient("known:///servers", grpc.WithResolvers(known),
		grpc.WithDefaultServiceConfig(os.Args[3]),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	defer connection.Close()
	load(inference.NewGRPCInferenceServiceClient(connection), rate)
}

func load(client inference.GRPCInferenceServiceClient, rate int) {
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	var calls sync.WaitGroup
	var lock sync.Mutex
	sent, right, failures, slowest := 0, 0, []string{}, time.Duration(0)
	due := time.NewTicker(time.Second / time.Duration(rate))
	defer due.Stop()
	for {
		select {
		case <-over:
			calls.Wait()
			check(json.NewEncoder(os.Stdout).Encode(map[string]any{
				"sent": sent, "right": right, "failures": failures, "slowest": slowest.Seconds(),
			}))
			return
		case <-due.C:
		}
		number := sent
		sent++
		calls.Add(1)
		go func() {
			defer calls.Done()
			asked := time.Now()
			failure := ask(client, number)
			took := time.Since(asked)
			lock.Lock()
			defer lock.Unlock()
			slowest = max(slowest, took)
			if failure == "" {
				right++
			} else {
				failures = append(failures, failure)
			}
		}()
	}
}

// What went wrong; nothing if the answer is what was sent.
func ask(client inference.GRPCInferenceServiceClient, number int) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	row := new(bytes.Buffer)
	check(binary.Write(row, binary.LittleEndian, []float32{float32(number), 1}))
	id := strconv.Itoa(number)
	answer, err := client.ModelInfer(ctx, &inference.ModelInferRequest{
		ModelName: "slow", Id: id,
		Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "x", Datatype: "FP32", Shape: []int64{1, 2}},
		},
		RawInputContents: [][]byte{row.Bytes()},
	})
	if err != nil {
		return err.Error()
	}
	if answer.Id != id || !bytes.Equal(answer.RawOutputContents[0], row.Bytes()) {
		return fmt.Sprintf("asked %d, answered %v", number, answer)
	}
	return ""
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
