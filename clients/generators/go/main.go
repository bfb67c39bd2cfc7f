// Drives a node through the client that OpenAPI Generator makes (go).
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"annals"
)

var ctx = context.Background()

func assert(holds bool, what any) {
	if !holds {
		panic(fmt.Sprintf("%+v", what))
	}
}

// must returns the answer of a call that has to succeed.
func must[T any](answer T, _ *http.Response, err error) T {
	if err != nil {
		panic(fmt.Sprintf("%v: %s", err, err.(*annals.GenericOpenAPIError).Body()))
	}
	return answer
}

// refused returns the typed answer of a call that has to be refused with this status.
func refused[Model, T any](status int, _ T, response *http.Response, err error) Model {
	var refusal *annals.GenericOpenAPIError
	assert(errors.As(err, &refusal), err)
	assert(response.StatusCode == status, response)
	return refusal.Model().(Model)
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
	configuration := annals.NewConfiguration()
	configuration.Servers = annals.ServerConfigurations{{URL: os.Args[1]}}
	client := annals.NewAPIClient(configuration)
	commands, models, streams := client.CommandsAPI, client.ReadModelsAPI, client.StreamsAPI

	place := func() *annals.CommandAnswer {
		request := commands.OrderPlaceOrder(ctx, "order-1").IdempotencyKey("place-1")
		return must(request.AnnalsOccurredAt("2018-06-04T16:44:48Z").PlaceOrder(order()).Execute())
	}
	placed := place()
	assert(placed.Version == 1 && !placed.Repeated, placed)
	fmt.Println("done: place")
	again := place()
	assert(again.Repeated && again.Position == placed.Position, again)
	fmt.Println("done: repeat")

	answer, response, err := commands.OrderShipOrder(ctx, "order-1").Execute()
	early := refused[annals.RefusalOfOrder](422, answer, response, err)
	assert(early.OrderNotApprovedRefusal.PlacedAt.Year() == 2018, early)
	fmt.Println("done: refusal")
	answer, response, err = commands.OrderApproveOrder(ctx, "order-1").IfMatch(`"7"`).Execute()
	stale := refused[annals.Problem](412, answer, response, err)
	assert(stale.Code == "version_conflict" && *stale.CurrentVersion == 1, stale)
	fmt.Println("done: version")

	payment := annals.CapturePayment{Order: "1", Method: "credit_card", Instalments: 3, Amount: real(5_000_000_800)}
	paid := must(commands.PaymentCapturePayment(ctx, "payment-1").CapturePayment(payment).Execute())
	assert(paid.Version == 1, paid)
	fmt.Println("done: payment")

	var lines []annals.CommandLine
	for n := 2; n <= 4; n++ {
		lines = append(lines, *annals.NewCommandLine("PlaceOrder", order(), fmt.Sprintf("order-%d", n)))
	}
	lines = append(lines, *annals.NewCommandLine("ShipOrder", struct{}{}, "order-2"))
	answers := must(commands.SubmitCommands(ctx).CommandLine(lines).Execute())
	var statuses []string
	for _, answer := range answers {
		statuses = append(statuses, fmt.Sprint(answer.Status))
	}
	assert(strings.Join(statuses, ",") == "200,200,200,422", answers)
	assert(*answers[3].Code == "order_not_approved", answers)
	fmt.Println("done: batch")

	row := must(models.ReadOneOfOrderSummary(ctx, "1").MinPosition(placed.Position).Execute())
	assert(row.ItemsMinor == 5_000_000_000, row)
	fmt.Println("done: own write")

	for _, answer := range answers[:3] {
		must(models.ReadOneOfOrderSummary(ctx, "1").MinPosition(answer.GetPosition()).Execute())
	}
	var seen []string
	request := models.ReadOrderSummary(ctx).Limit(3)
	for {
		page := must(request.Execute())
		for _, row := range page.Rows {
			seen = append(seen, row.OrderId)
		}
		if !page.Next.IsSet() || page.Next.Get() == nil {
			break
		}
		request = request.After(*page.Next.Get())
	}
	assert(strings.Join(seen, ",") == "1,2,3,4", seen)
	fmt.Println("done: pages")

	page := must(streams.StreamEvents(ctx, "order-1").MinPosition(placed.Position).Execute())
	event := page.Events[0].OrderPlacedEvent
	assert(event != nil && event.Actor.Get() == nil && event.Data.Customer == "me", page.Events)
	must(commands.OrderApproveOrder(ctx, "order-1").Execute())
	approved := must(commands.OrderStartProcessing(ctx, "order-1").Execute())
	page = must(streams.StreamEvents(ctx, "order-1").MinPosition(approved.Position).Execute())
	// Events of the same shape are told apart by their type.
	assert(page.Events[1].OrderApprovedEvent != nil && page.Events[2].OrderApprovedEvent == nil, page.Events)
	fmt.Println("done: events")

	state := must(streams.StreamState(ctx, "order-1").MinPosition(placed.Position).Execute())
	assert(state.OrderStreamState.State.Placed.Get().Facts.ItemsMinor == 5_000_000_000, state)
	fmt.Println("done: state")
	fmt.Println("choices: typed")
}
