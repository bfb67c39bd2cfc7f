import annals.ApiClient;
import annals.ApiException;
import annals.JSON;
import annals.api.CommandsApi;
import annals.api.CommandsApi.APIOrderApproveOrderRequest;
import annals.api.CommandsApi.APIOrderPlaceOrderRequest;
import annals.api.CommandsApi.APIOrderShipOrderRequest;
import annals.api.CommandsApi.APIPaymentCapturePaymentRequest;
import annals.api.CommandsApi.APISubmitCommandsRequest;
import annals.api.ReadModelsApi;
import annals.api.ReadModelsApi.APIReadOneOfOrderSummaryRequest;
import annals.api.ReadModelsApi.APIReadOrderSummaryRequest;
import annals.api.StreamsApi;
import annals.api.StreamsApi.APIStreamEventsRequest;
import annals.api.StreamsApi.APIStreamStateRequest;
import annals.model.*;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Drives a node through the client that OpenAPI Generator makes (java, library native). */
public class Drive {
    interface Call {
        Object make() throws ApiException;
    }

    static void check(boolean holds, Object what) {
        if (!holds) throw new AssertionError(String.valueOf(what));
    }

    /** The refusal of a call that has to be refused with this status. */
    static <T> T refused(int status, Class<T> type, Call call) throws Exception {
        try {
            throw new AssertionError(String.valueOf(call.make()));
        } catch (ApiException refusal) {
            check(refusal.getCode() == status, refusal);
            return JSON.getDefault().getMapper().readValue(refusal.getResponseBody(), type);
        }
    }

    static Money real(long minor) {
        return new Money().amountMinor(minor).currency("BRL");
    }

    static PlaceOrder order() {
        Item item = new Item().line(1L).product("book").seller("shop");
        item.price(real(5_000_000_000L)).freight(real(800));
        OffsetDateTime delivery = OffsetDateTime.parse("2030-01-01T00:00:00Z");
        return new PlaceOrder().customer("me").items(List.of(item)).estimatedDelivery(delivery);
    }

    public static void main(String[] arguments) throws Exception {
        ApiClient client = new ApiClient();
        client.updateBaseUri(arguments[0]);
        CommandsApi commands = new CommandsApi(client);
        ReadModelsApi models = new ReadModelsApi(client);
        StreamsApi streams = new StreamsApi(client);

        var place = APIOrderPlaceOrderRequest.newBuilder().stream("order-1").placeOrder(order())
            .idempotencyKey("place-1").annalsOccurredAt("2018-06-04T16:44:48Z").build();
        CommandAnswer placed = commands.orderPlaceOrder(place);
        check(placed.getVersion() == 1 && !placed.getRepeated(), placed);
        System.out.println("done: place");
        CommandAnswer again = commands.orderPlaceOrder(place);
        check(again.getRepeated() && again.getPosition().equals(placed.getPosition()), again);
        System.out.println("done: repeat");

        var ship = APIOrderShipOrderRequest.newBuilder().stream("order-1").build();
        RefusalOfOrder refusal = refused(422, RefusalOfOrder.class, () -> commands.orderShipOrder(ship));
        OrderNotApprovedRefusal early = refusal.getOrderNotApprovedRefusal();
        check(early.getPlacedAt().getYear() == 2018, early);
        System.out.println("done: refusal");
        var approve = APIOrderApproveOrderRequest.newBuilder().stream("order-1").ifMatch("\"7\"").build();
        Problem stale = refused(412, Problem.class, () -> commands.orderApproveOrder(approve));
        check(stale.getCode().equals("version_conflict") && stale.getCurrentVersion() == 1, stale);
        System.out.println("done: version");

        CapturePayment payment = new CapturePayment().order("1").instalments(3L).amount(real(5_000_000_800L));
        payment.method(CapturePayment.MethodEnum.CREDIT_CARD);
        var capture = APIPaymentCapturePaymentRequest.newBuilder().stream("payment-1").capturePayment(payment);
        check(commands.paymentCapturePayment(capture.build()).getVersion() == 1, payment);
        System.out.println("done: payment");

        List<CommandLine> lines = new ArrayList<>();
        for (int n = 2; n <= 4; n++) {
            lines.add(new CommandLine().stream("order-" + n).command("PlaceOrder").data(order()));
        }
        lines.add(new CommandLine().stream("order-2").command("ShipOrder").data(Map.of()));
        var batch = APISubmitCommandsRequest.newBuilder().commandLine(lines).build();
        List<AnswerLine> answers = commands.submitCommands(batch);
        List<Integer> statuses = answers.stream().map(AnswerLine::getStatus).toList();
        check(statuses.equals(List.of(200, 200, 200, 422)), answers);
        check(answers.get(3).getCode().equals("order_not_approved"), answers);
        System.out.println("done: batch");

        var one = APIReadOneOfOrderSummaryRequest.newBuilder().key("1");
        OrderSummaryRow row = models.readOneOfOrderSummary(one.minPosition(placed.getPosition()).build());
        check(row.getItemsMinor() == 5_000_000_000L, row);
        System.out.println("done: own write");

        for (AnswerLine answer : answers.subList(0, 3)) {
            models.readOneOfOrderSummary(one.minPosition(answer.getPosition()).build());
        }
        List<String> seen = new ArrayList<>();
        String after = null;
        do {
            var of = APIReadOrderSummaryRequest.newBuilder().limit(3).after(after).build();
            OrderSummaryPage page = models.readOrderSummary(of);
            page.getRows().forEach(found -> seen.add(found.getOrderId()));
            after = page.getNext();
        } while (after != null);
        check(seen.equals(List.of("1", "2", "3", "4")), seen);
        System.out.println("done: pages");

        var from = APIStreamEventsRequest.newBuilder().stream("order-1").minPosition(placed.getPosition());
        OrderPlacedEvent event = streams.streamEvents(from.build()).getEvents().get(0).getOrderPlacedEvent();
        check(event.getActor() == null && event.getData().getCustomer().equals("me"), event);
        System.out.println("done: events");

        var of = APIStreamStateRequest.newBuilder().stream("order-1").minPosition(placed.getPosition());
        OrderStreamState state = streams.streamState(of.build()).getOrderStreamState();
        check(state.getState().getPlaced().getFacts().getItemsMinor() == 5_000_000_000L, state);
        System.out.println("done: state");
        System.out.println("choices: typed");
    }
}
