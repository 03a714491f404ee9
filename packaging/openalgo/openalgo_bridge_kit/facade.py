"""For code that would rather call than emit: one publish method for each of the five event types."""

from . import kit


class EventPublisher:
    """Appends events, and shows them on the page as socketio.emit would have done.

    No method raises or waits. Further fields of an event are keyword arguments; `data` holds the fields in
    the order in which they are given here. A field of None is left out.
    """

    def __init__(self, bridge, reports):
        self._bridge = bridge
        self._reports = reports

    def publish_order_event(self, user_id, symbol, action, orderid, mode="live", **fields):
        """An order was placed."""
        self._publish("order_event", user_id, symbol=symbol, action=action, orderid=orderid, mode=mode, **fields)

    def publish_analyzer_update(self, user_id, request, response, **fields):
        """Something happened in analyze mode; `request` and `response` are dicts."""
        self._publish("analyzer_update", user_id, request=request, response=response, **fields)

    def publish_order_notification(self, user_id, symbol, status, message, **fields):
        """Something to tell about an order."""
        self._publish("order_notification", user_id, symbol=symbol, status=status, message=message, **fields)

    def publish_master_contract_download(self, user_id, broker=None, status=None, message=None, **fields):
        """The symbols of a broker were downloaded, or were not."""
        self._publish("master_contract_download", user_id, broker=broker, status=status, message=message, **fields)

    def publish_password_change(self, user_id, user=None, status=None, message=None, **fields):
        """A password was changed, or was not."""
        self._publish("password_change", user_id, user=user, status=status, message=message, **fields)

    def _publish(self, event, user_id, **fields):
        try:
            data = {name: value for name, value in fields.items() if value is not None}
            self._bridge.publish(event, data, user_id)
        except Exception as error:
            self._reports.error(f"an event was not published: {type(error).__name__}")


class EventPublisherFactory:
    """Makes publishers; the name and the call are the original design's."""

    @staticmethod
    def create_publisher():
        """A publisher for this process: the loaded kit's, or one that only appends."""
        return EventPublisher(*kit.current())
