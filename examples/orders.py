"""Orders from a CSV file: one after the other for each customer, all customers at once.

``python examples/orders.py [orders.csv]``. The group keeps the order, the id keeps a line from being booked
twice: run this again within five minutes, and the queue knows every order already.
The queues are in the file orders.db; ``SQSPIPES_BROKER=sqs://`` moves them to SQS.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable

from sqspipes import TaskClient

SAMPLE = """order,customer,amount
1001,ada,25.00
1002,grace,40.00
1003,ada,-5.00
1004,grace,2.50
1005,ada,10.00
1006,alan,7.75
"""

Row = dict[str, str]


def check(row: Row) -> Row:
    """Refuse what is no amount: the line becomes a dead letter, the others go on."""
    return {**row, "amount": f"{float(row['amount']):.2f}"}


def book(row: Row) -> tuple[str, str, str]:
    """Book one order; only here does it matter that a customer's orders come in order."""
    return row["customer"], row["order"], row["amount"]


def main(rows: Iterable[Row]) -> None:
    """Put all orders, run until the pipe is empty, print what was booked."""
    with TaskClient("orders", broker=os.environ.get("SQSPIPES_BROKER", "sqlite:///orders.db")) as client:
        client.register_tasks([{"method": check, "workers": 4, "retries": 0}, {"method": book, "workers": 4}])
        # Lazily and in full requests: the file may be larger than memory.
        put = client.put_many(rows, group=lambda row: row["customer"], id=lambda row: row["order"])
        print(f"{put} orders put")
        for customer, order, amount in client.run(iterate=True, drain=True):
            print(f"{customer:<10}{order:>6}{amount:>10}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with open(sys.argv[1], newline="", encoding="utf-8") as file:
            main(csv.DictReader(file))
    else:
        main(csv.DictReader(io.StringIO(SAMPLE)))
