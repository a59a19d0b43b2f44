"""Trains a network that adds two numbers: data/sums.csv -> model.pt, metrics.json."""

import csv
import json
import os

import torch

with open(os.environ["TRAINING_PARAMETERS"]) as file:
    parameters = json.load(file)
torch.manual_seed(parameters["seed"])
with open("data/sums.csv", newline="") as file:
    rows = torch.tensor([[float(value) for value in row] for row in csv.reader(file)])
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=parameters["rate"])
for _ in range(parameters["steps"]):
    loss = torch.nn.functional.mse_loss(model(rows[:, :2]), rows[:, 2:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with open("metrics.json", "w") as file:
    json.dump({"loss": loss.item()}, file)
torch.save(model.state_dict(), "model.pt")
