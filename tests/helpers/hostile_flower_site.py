"""Sites by Flower that misbehave: site 1 sends noise, then its last reply; site 2 dies; site 3 sends NaN."""

import json
import os
import signal

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsparse_jax.config import model_from_config
from fedsparse_jax.deploy import flower
from fedsparse_jax.deploy.envelope import unseal
from fedsparse_jax.deploy.own_scans import own_config
from fedsparse_jax.deploy.sides import own_settings
from tests.helpers.no_numbers import with_no_numbers

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
        own, where = own_settings(flower.flower_folder(), name)
        network, _ = model_from_config(own_config(json.loads(context.run_config["experiment"]), own, where))
        reply = with_no_numbers(reply, network)
    return Message(RecordDict({"fedsparse_jax": ConfigRecord({"bytes": reply})}), reply_to=message)
