"""Sites by Flower that misbehave: site 1 sends noise, then its last reply; site 2 dies; site 3 sends NaN."""

import json
import os
import signal

import jax
import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsparse_jax.communication import Update, encode, make_context
from fedsparse_jax.config import model_from_config
from fedsparse_jax.deploy import flower
from fedsparse_jax.deploy.envelope import seal, unseal
from fedsparse_jax.deploy.own_scans import own_config
from fedsparse_jax.deploy.sides import own_settings

client_app = ClientApp()
client_app.query("join")(flower.answer_message)


@client_app.train()
def train(message, context):
    """As an honest site, but for some rounds."""
    order = message.content["fedsparse_jax"]["bytes"]
    round_, (name,) = unseal(order).round, flower._names_here(context.run_config["sites"].split(","))
    if (name, round_) == ("site-2", 2):
        os.kill(os.getpid(), signal.SIGKILL)
    reply = flower.answer_message(message, context).content["fedsparse_jax"]["bytes"]
    before = context.state["before"]["bytes"] if "before" in context.state else b""
    context.state["before"] = ConfigRecord({"bytes": reply})
    if name == "site-1":
        reply = {1: b"noise", 2: before}.get(round_, reply)
    if (name, round_) == ("site-3", 3):
        reply = seal(unseal(reply)._replace(messages=(_no_numbers(name, context),)))
    return Message(RecordDict({"fedsparse_jax": ConfigRecord({"bytes": reply})}), reply_to=message)


def _no_numbers(name, context):
    """A message whose weights are not numbers."""
    own, where = own_settings(flower.flower_folder(), name)
    network, _ = model_from_config(own_config(json.loads(context.run_config["experiment"]), own, where))
    like = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, np.float32), like)
    return encode(Update(params, jax.tree.map(np.isnan, params)), make_context(params))
