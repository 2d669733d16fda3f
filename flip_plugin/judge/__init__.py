"""Asking a judge model.

`client` is what others use. A question goes through `cache`, `retries` (429, 5xx, time-outs: what is sent again),
`replicas` (to which server) and `http_request` (body and headers), on the loop of `event_loop`. `errors` says what
went wrong, `tokens` how long a prompt is, `call_log` keeps what was asked and answered.
"""
