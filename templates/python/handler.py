def handle(event, context):
    """Answers one request.

    event: body (bytes), headers, method, path, query. The answer: statusCode, headers and body; or the body alone.
    """
    # Standard output and error go to the function's log: spore logs.
    print(event.method, event.path)

    text = f"Hello, {event.query.get('name', 'world')}, from a unikernel!\n"
    if event.body:
        text += f"You sent {len(event.body)} bytes.\n"
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "text/plain; charset=utf-8"},
        "body": text,
    }
