// Drives a node through the client that oapi-codegen makes.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"drive/annals"
)

var ctx = context.Background()

func assert(holds bool, what any) {
	if !holds {
		panic(fmt.Sprintf("%+v", what))
	}
}

// must returns what has to be there, or stops with what the server said.
func must[T any](found *T, body []byte, err error) T {
	assert(err == nil, err)
	assert(found != nil, string(body))
	return *found
}

func real(minor int64) annals.Money {
	return annals.Money{AmountMinor: minor, Currency: "BRL"}
}

func order() annals.PlaceOrder {
	item := annals.Item{Line: 1, Product: "book", Seller: "shop", Price: real(5_000_000_000), Freight: real(800)}
	delivery := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return annals.PlaceOrder{Customer: "me", Items: []annals.Item{item}, EstimatedDelivery: delivery}
}

func main() {
	client, err := annals.NewClientWithResponses(os.Args[1])
	assert(err == nil, err)
	key, occurred, ifMatch := "place-1", "2018-06-04T16:44:48Z", `"7"`

	place := func() annals.CommandAnswer {
		params := &annals.OrderPlaceOrderParams{IdempotencyKey: &key, AnnalsOccurredAt: &occurred}
		answer, err := client.OrderPlaceOrderWithResponse(ctx, "order-1", params, order())
		return must(answer.JSON200, answer.Body, err)
	}
	placed := place()
	assert(placed.Version == 1 && !placed.Repeated, placed)
	fmt.Println("done: place")
	again := place()
	assert(again.Repeated && again.Position == placed.Position, again)
	fmt.Println("done: repeat")

	ship, err := client.OrderShipOrderWithResponse(ctx, "order-1", nil, annals.ShipOrder{})
	refusal := must(ship.ApplicationproblemJSON422, ship.Body, err)
	early, err := refusal.AsOrderNotApprovedRefusal()
	assert(err == nil && early.Code == "order_not_approved" && early.PlacedAt.Year() == 2018, early)
	fmt.Println("done: refusal")
	approve, err := client.OrderApproveOrderWithResponse(ctx, "order-1",
		&annals.OrderApproveOrderParams{IfMatch: &ifMatch}, annals.ApproveOrder{})
	stale := must(approve.ApplicationproblemJSON412, approve.Body, err)
	assert(stale.Code == "version_conflict" && *stale.CurrentVersion == 1, stale)
	fmt.Println("done: version")

	payment := annals.CapturePayment{
		Order: "1", Method: annals.CapturePaymentMethodCreditCard, Instalments: 3, Amount: real(5_000_000_800),
	}
	capture, err := client.PaymentCapturePaymentWithResponse(ctx, "payment-1", nil, payment)
	assert(must(capture.JSON200, capture.Body, err).Version == 1, string(capture.Body))
	fmt.Println("done: payment")

	var lines []annals.CommandLine
	for n := 2; n <= 4; n++ {
		lines = append(lines, annals.CommandLine{Stream: fmt.Sprintf("order-%d", n), Command: "PlaceOrder", Data: order()})
	}
	lines = append(lines, annals.CommandLine{Stream: "order-2", Command: "ShipOrder", Data: annals.ShipOrder{}})
	batch, err := client.SubmitCommandsWithResponse(ctx, nil, lines)
	answers := must(batch.JSON200, batch.Body, err)
	var statuses []string
	for _, answer := range answers {
		statuses = append(statuses, fmt.Sprint(answer.Status))
	}
	assert(strings.Join(statuses, ",") == "200,200,200,422", string(batch.Body))
	assert(*answers[3].Code == "order_not_approved", string(batch.Body))
	fmt.Println("done: batch")

	read := func(position *string) annals.OrderSummaryRow {
		params := &annals.ReadOneOfOrderSummaryParams{MinPosition: position}
		row, err := client.ReadOneOfOrderSummaryWithResponse(ctx, "1", params)
		return must(row.JSON200, row.Body, err)
	}
	row := read(&placed.Position)
	assert(row.ItemsMinor == 5_000_000_000, row)
	fmt.Println("done: own write")

	for _, answer := range answers[:3] {
		read(answer.Position)
	}
	var seen []string
	limit, after := int32(3), (*string)(nil)
	for {
		page, err := client.ReadOrderSummaryWithResponse(ctx, &annals.ReadOrderSummaryParams{Limit: &limit, After: after})
		rows := must(page.JSON200, page.Body, err)
		for _, row := range rows.Rows {
			seen = append(seen, row.OrderId)
		}
		if after = rows.Next; after == nil {
			break
		}
	}
	assert(strings.Join(seen, ",") == "1,2,3,4", seen)
	fmt.Println("done: pages")

	page, err := client.StreamEventsWithResponse(ctx, "order-1", &annals.StreamEventsParams{MinPosition: &placed.Position})
	events := must(page.JSON200, page.Body, err).Events
	// A form is asked for by hand: look at the type first.
	other, err := events[0].AsOtherEvent()
	assert(err == nil && other.Type == "OrderPlaced" && other.Actor == nil, other)
	event, err := events[0].AsOrderPlacedEvent()
	assert(err == nil && event.Data.Customer == "me", event)
	fmt.Println("done: events")

	state, err := client.StreamStateWithResponse(ctx, "order-1", &annals.StreamStateParams{MinPosition: &placed.Position})
	found := must(state.JSON200, state.Body, err)
	of, err := found.AsOrderStreamState()
	minor, _ := json.Marshal(of.State.Placed)
	assert(err == nil && strings.Contains(string(minor), `"items_minor":5000000000`), string(minor))
	fmt.Println("done: state")
	fmt.Println("choices: typed")
}
