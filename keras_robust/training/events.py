"""Event files of TensorBoard, written without TensorFlow."""

import io
import time


class EventWriter:
    """One TensorBoard event file: a sequence of checksummed protocol buffers."""

    def __init__(self, folder):
        self._event, self._summary, record_writer = tensorboard()
        folder.mkdir(parents=True, exist_ok=True)
        # Nanoseconds: a second `fit` in the same folder adds a file and must not truncate the first.
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}.keras_robust").open("wb")
        self._records = record_writer(self._file)
        self._write(file_version="brain.Event:2")

    def scalar(self, tag, value, step):
        self._write(step=step, summary=self._summary(value=[{"tag": tag, "simple_value": value}]))

    def start(self, step):
        """Tells TensorBoard that the run goes on from a step: what an earlier file has beyond it is dropped."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._write(step=step, session_log=SessionLog(status=SessionLog.START))

    def image(self, tag, pixels, step):
        from PIL import Image  # a requirement of tensorboard itself

        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        height, width = pixels.shape[:2]
        picture = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": png.getvalue()}
        self._write(step=step, summary=self._summary(value=[{"tag": tag, "image": picture}]))

    def close(self):
        self._file.close()

    def _write(self, **fields):
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._file.flush()


def tensorboard():
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise ImportError("TensorBoard logs are written by tensorboard: pip install tensorboard") from error
    return Event, Summary, RecordWriter
