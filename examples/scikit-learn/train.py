"""Trains a classifier of points: data/points.csv -> model.skops, metrics.json."""

import argparse
import csv
import json

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from skops import io

parser = argparse.ArgumentParser()
parser.add_argument("--C", type=float, default=1.0)
options = parser.parse_args()

with open("data/points.csv", newline="") as file:
    rows = list(csv.reader(file))
points = [[float(x), float(y)] for x, y, _ in rows]
kinds = [kind for _, _, kind in rows]
known, unknown, labels, wanted = train_test_split(points, kinds, test_size=0.3, random_state=0)
model = LogisticRegression(C=options.C, max_iter=1000).fit(known, labels)
with open("metrics.json", "w") as file:
    json.dump({"accuracy": {"test": model.score(unknown, wanted)}}, file)
io.dump(model, "model.skops")
