"""An HTTP server on asyncio alone: streams, tasks, time-outs, queues, executors, processes."""

import asyncio
import os
import signal

KINDS = {200: "OK", 404: "Not Found", 500: "Internal Server Error"}


async def gather():
    """Many sleepers wake in the order of their times."""
    order = []

    async def sleeper(number):
        await asyncio.sleep(number * 0.004)
        order.append(number)
        return number

    results = await asyncio.gather(*(sleeper(number) for number in reversed(range(10))))
    return f"{order} {results}"


async def tasks():
    """Producers and consumers on a queue, a lock, a task that is cancelled, one that takes too long."""
    queue, seen, lock = asyncio.Queue(10), [], asyncio.Lock()

    async def consume():
        while True:
            number = await queue.get()
            async with lock:
                seen.append(number)
            queue.task_done()

    consumers = [asyncio.create_task(consume()) for _ in range(5)]
    for number in range(1000):
        await queue.put(number)
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    ended = await asyncio.gather(*consumers, return_exceptions=True)
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.02)
        late = "no"
    except asyncio.TimeoutError:
        late = "timed out"
    return f"{len(seen)} {sum(seen)} {[type(one).__name__ for one in ended]} {late}"


async def executor():
    """Calls in threads beside the loop."""
    loop = asyncio.get_running_loop()
    sums = await asyncio.gather(*(loop.run_in_executor(None, sum, range(n * 1000)) for n in range(20)))
    return str(sum(sums))


async def loopback():
    """A hundred connections at once to a server in the same loop."""

    async def upper(reader, writer):
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(upper, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def talk(number):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"message %d " % number * 1000)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return len(answer)

    lengths = await asyncio.gather(*(talk(number) for number in range(100)))
    server.close()
    await server.wait_closed()
    return str(sum(lengths))


async def process():
    """A helper whose end the loop learns of."""
    helper = await asyncio.create_subprocess_exec(
        os.path.abspath("helper"), "async", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await helper.communicate(b"from the loop\n")
    return f"{helper.returncode} {output}"


async def signals():
    """A signal as an event of the loop."""
    loop, got = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR2, got.set)
    os.kill(os.getpid(), signal.SIGUSR2)
    await asyncio.wait_for(got.wait(), 10)
    return str(loop.remove_signal_handler(signal.SIGUSR2))


PAGES = {
    "/gather": gather, "/tasks": tasks, "/executor": executor, "/loopback": loopback, "/process": process,
    "/signals": signals,
}


async def serve(reader, writer):
    try:
        while line := await reader.readline():
            length = 0
            while (field := await reader.readline()).strip():
                name, _, value = field.decode().partition(":")
                if name.lower() == "content-length":
                    length = int(value)
            body = await reader.readexactly(length)
            path = line.split()[1].decode()
            status = 200
            if path == "/":
                text = "asyncio"
            elif path == "/echo":
                text = f"{len(body)} {sum(body)}"
            elif page := PAGES.get(path):
                try:
                    text = await page()
                except Exception as error:
                    status, text = 500, repr(error)
            else:
                status, text = 404, "no such page"
            content = (text + "\n").encode()
            head = f"HTTP/1.1 {status} {KINDS[status]}\r\nContent-Type: text/plain\r\nContent-Length: {len(content)}"
            writer.write(head.encode() + b"\r\n\r\n" + content)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(os.environ["PORT"]))
    await server.serve_forever()


asyncio.run(main())
