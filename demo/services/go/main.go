// A payment service that takes part in sagas: Go's standard library, and a file for what must not be forgotten.
//
//	go run . --port 8200 --database payments.jsonl
//
// Its one rule: what is answered is written, in one line with the deed, before it is answered. So whoever asks again under a
// key gets the answer that was given, whatever happened in between; and what was called off before it came stays called off.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
)

const limitCents = 100_000

type object = map[string]any

// What is answered under a key.
type answer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    object            `json:"body"`
}

// A line of the file: the answer to a key, and what stands since.
type entry struct {
	Key    string `json:"key"`
	Answer answer `json:"answer"`
	Saga   string `json:"saga,omitempty"`
	Cents  int64  `json:"cents,omitempty"`
	Off    string `json:"off,omitempty"`
}

type order struct {
	OrderID     string `json:"orderId"`
	Sku         string `json:"sku"`
	Quantity    int64  `json:"quantity"`
	AmountCents *int64 `json:"amountCents"`
}

type service struct {
	// Two requests under one key, and of one saga, come one after the other.
	sync.Mutex
	file      *os.File
	answers   map[string]answer
	charges   map[string]int64
	calledOff map[string]bool
}

func (s *service) apply(e entry) {
	s.answers[e.Key] = e.Answer
	if e.Saga != "" {
		s.charges[e.Saga] = e.Cents
	}
	if e.Off != "" {
		s.calledOff[e.Off] = true
		delete(s.charges, e.Off)
	}
}

func open(path string) *service {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	fatal(err)
	s := &service{file: file, answers: map[string]answer{}, charges: map[string]int64{}, calledOff: map[string]bool{}}
	text, err := io.ReadAll(file)
	fatal(err)
	// A line without its end was being written when the process died: nobody was answered.
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	fatal(file.Truncate(int64(len(whole))))
	_, err = file.Seek(0, io.SeekEnd)
	fatal(err)
	for _, line := range bytes.Split(bytes.TrimSpace(whole), []byte("\n")) {
		var e entry
		if len(line) > 0 {
			fatal(json.Unmarshal(line, &e))
			s.apply(e)
		}
	}
	return s
}

func (s *service) keep(e entry) error {
	line, err := json.Marshal(e)
	if err == nil {
		_, err = s.file.Write(append(line, '\n'))
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err == nil {
		s.apply(e)
	}
	return err
}

func event(kind string, data object) object {
	return object{"specversion": "1.0", "type": kind, "source": "/payments", "id": "1", "data": data}
}

func problem(status int, code, detail string) entry {
	headers := map[string]string{"Content-Type": "application/problem+json"}
	return entry{Answer: answer{status, headers, object{"code": code, "detail": detail}}}
}

func (s *service) charge(saga string, body []byte) entry {
	var wanted order
	if json.Unmarshal(body, &wanted) != nil || wanted.AmountCents == nil {
		return problem(400, "not-an-order", "amountCents must be a whole number")
	}
	cents := *wanted.AmountCents
	switch {
	case s.calledOff[saga]:
		return problem(422, "called-off", "the order was called off before it came")
	case cents > limitCents:
		detail := fmt.Sprintf("%d is above %d", cents, limitCents)
		declined := problem(422, "LIMIT_EXCEEDED", detail)
		failed := object{"orderId": wanted.OrderID, "code": "LIMIT_EXCEEDED", "detail": detail}
		declined.Answer.Body["events"] = []object{event("PaymentFailed", failed)}
		return declined
	}
	processed := event("PaymentProcessed", object{
		"paymentId": "p-" + saga, "orderId": wanted.OrderID, "sku": wanted.Sku,
		"quantity": wanted.Quantity, "amountCents": cents,
	})
	headers := map[string]string{"Content-Type": "application/cloudevents+json"}
	return entry{Answer: answer{201, headers, processed}, Saga: saga, Cents: cents}
}

func (s *service) refund(body []byte) entry {
	var step struct {
		SagaID string `json:"sagaId"`
	}
	if json.Unmarshal(body, &step) != nil || step.SagaID == "" {
		return problem(400, "not-a-step", "sagaId is missing")
	}
	cents, stands := s.charges[step.SagaID]
	if !stands {
		headers := map[string]string{"Sagahost-Outcome": "nothing-to-undo"}
		return entry{Answer: answer{200, headers, object{}}, Off: step.SagaID}
	}
	refunded := event("PaymentRefunded", object{
		"orderId": step.SagaID, "paymentId": "p-" + step.SagaID, "amountCents": cents,
	})
	headers := map[string]string{"Sagahost-Outcome": "undone", "Content-Type": "application/cloudevents+json"}
	return entry{Answer: answer{200, headers, refunded}, Off: step.SagaID}
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	key := r.Header.Get("Idempotency-Key")
	if err != nil || key == "" || (r.URL.Path != "/payments" && r.URL.Path != "/payments/cancel") {
		http.NotFound(w, r)
		return
	}
	s.Lock()
	known, ok := s.answers[key]
	if !ok {
		var done entry
		switch {
		case !json.Valid(body):
			done = problem(400, "not-json", "the body is not JSON")
		case r.URL.Path == "/payments":
			done = s.charge(r.Header.Get("ce-sagaid"), body)
		default:
			done = s.refund(body)
		}
		done.Key = key
		// What cannot be written did not happen.
		fatal(s.keep(done))
		known = done.Answer
	}
	s.Unlock()
	for name, value := range known.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(known.Status)
	_ = json.NewEncoder(w).Encode(known.Body)
}

func fatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	port := flag.Int("port", 8200, "")
	database := flag.String("database", "payments.jsonl", "")
	flag.Parse()
	payments := open(*database)
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	fatal(err)
	fmt.Printf("payments on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, payments))
}
