/*
 * A guest that attacks its host: it writes into the pages and rings that it shares with the monitor, rings the doorbell
 * itself, and edits its own page tables until it is at ring 0 of its virtual machine.
 *
 *   hostile CRIME        commits it at once
 *   PORT=8080 hostile    serves HTTP; the path names the crime, and a crime that it survives is answered with "survived"
 *
 * Library OS and program share an address space, so that nothing keeps it from any of this. Addresses and offsets are
 * those of abi/src/layout.rs and abi/src/pages.rs; tests/e2e checks what becomes of each crime. In the process form there
 * is no doorbell at a port, and no ring 0: what is left there are the pages and rings.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define WINDOW 0x200000000000ul
#define MODULES 0x208000000000ul
#define MODULES_GPA 0x1000000000ul
#define MONITOR 0x1f8000000000ul
#define MONITOR_GPA 0x2000000000ul
#define BOOT_PAGE (WINDOW + 0)
#define HOST_PAGE (WINDOW + 0x1000)
#define GUEST_PAGE (WINDOW + 0x2000)
#define LOG_RING (WINDOW + 0x40000)
#define LOG_RING_BYTES 0x10000
#define IMAGE (WINDOW + 0x200000)
#define TABLES (WINDOW + 0x400000)
#define TABLES_GPA 0x400000ul
#define STREAMS (WINDOW + 0x600000)
/* Where this program maps what it is not given. */
#define LOOT_INDEX 100ul
#define LOOT (LOOT_INDEX << 39)

enum { WAIT = 1, NOTIFY = 2, EXIT = 3, FLUSH = 4, SWITCH = 5 };

struct slot {
	volatile uint32_t generation, flags, receive_head, transmit_tail;
};
struct egress {
	volatile uint32_t sequence;
	volatile uint16_t kind, port;
	volatile uint8_t address[16];
};
static struct slot *const slots = (struct slot *)(GUEST_PAGE + 1064);
static struct slot *const host_slots = (struct slot *)(HOST_PAGE + 496);
static struct egress *const places = (struct egress *)(GUEST_PAGE + 296);
static volatile uint64_t *const deadline = (uint64_t *)(GUEST_PAGE + 0);
static volatile uint64_t *const top_table = (uint64_t *)(GUEST_PAGE + 8);
static volatile uint32_t *const log_tail = (uint32_t *)(GUEST_PAGE + 24);
static volatile uint32_t *const log_head = (uint32_t *)(HOST_PAGE + 40);
static volatile uint32_t *const exit_record = (uint32_t *)(GUEST_PAGE + 40);

static volatile int is_ringing, has_no_port;

/* In a process there is no port: the instruction is passed over. */
static void pass_over(int number, siginfo_t *info, void *context)
{
	(void)info;
	if (!is_ringing) {
		signal(number, SIG_DFL);
		return;
	}
	has_no_port = 1;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void ring(uint32_t request)
{
	is_ringing = 1;
	__asm__ volatile("out %0, $0x50" : : "a"(request) : "memory");
	is_ringing = 0;
	/* The library OS rings instead when there is nothing to do. */
	if (has_no_port)
		usleep(2000);
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* Rings: indices that no ring can have. The slots that carry something are those that the host says so of. */
static void move_all(uint32_t received, uint32_t sent)
{
	for (int slot = 0; slot < 64; slot++)
		if (host_slots[slot].flags & 1) {
			slots[slot].receive_head += received;
			slots[slot].transmit_tail += sent;
		}
	ring(NOTIFY);
}

static void tail_beyond(void) { move_all(0, 0x10001); }
static void tail_far_beyond(void) { move_all(0, 0x80000000); }
static void tail_back(void) { move_all(0, -1u); }
static void head_beyond(void) { move_all(0x10000, 0); }
static void head_back(void) { move_all(-0x10001u, 0); }

/* More than the socket takes, so that the ring is still full when its index is taken back. */
static void tail_back_while_blocked(void)
{
	for (int round = 0; round < 64; round++)
		move_all(0, 0x8000);
	move_all(0, -0x9000u);
}

static void generations(void)
{
	for (uint32_t value = 0; value < 5; value++) {
		for (int slot = 0; slot < 64; slot++) {
			slots[slot].generation = value - 2;
			slots[slot].flags = -1u;
			slots[slot].receive_head = slots[slot].transmit_tail = 0xdeadbeef;
		}
		ring(NOTIFY);
	}
}

static void put_frame(uint32_t length, unsigned char origin, char fill)
{
	volatile unsigned char *base = (unsigned char *)LOG_RING;
	uint32_t tail = *log_tail;
	unsigned char header[4] = {length, length >> 8, origin, 0};
	for (uint32_t index = 0; index < 4; index++)
		base[(tail + index) % LOG_RING_BYTES] = header[index];
	for (uint32_t index = 0; index < length && index < LOG_RING_BYTES; index++)
		base[(tail + 4 + index) % LOG_RING_BYTES] = fill;
	*log_tail = tail + 4 + length;
}

static void log_tail_beyond(void)
{
	*log_tail += LOG_RING_BYTES + 1;
	ring(NOTIFY);
}

static void log_tail_back(void)
{
	*log_tail -= 1;
	ring(NOTIFY);
}

static void log_empty_frame(void)
{
	put_frame(0, 1, 0);
	ring(NOTIFY);
}

static void log_long_frame(void)
{
	put_frame(0xffff, 1, 'x');
	*log_tail = *log_head + 100;
	ring(NOTIFY);
}

static void log_unknown_origin(void)
{
	put_frame(10, 77, 'x');
	ring(NOTIFY);
}

static void log_garbage(void)
{
	memset((void *)LOG_RING, 0xa5, LOG_RING_BYTES);
	*log_tail += 1000;
	ring(NOTIFY);
}

/* Frames are valid and as many as the doorbell takes; what waits is changed under the monitor's hands. */
static void log_flood(void)
{
	for (double end = seconds() + 2; seconds() < end;) {
		while (*log_tail - *log_head < LOG_RING_BYTES - 200)
			put_frame(60, 3, '\n');
		ring(NOTIFY);
		memset((void *)LOG_RING, 0, 64);
		*log_tail = *log_head;
	}
}

/* Doorbell: requests and arguments that mean nothing. */
static void unknown_request(void) { ring(0xffffffff); }

static void narrow_doorbell(void)
{
	__asm__ volatile("outb %0, $0x50" : : "a"((uint8_t)NOTIFY));
}

static void many_doorbells(void)
{
	uint32_t requests[64];
	uint64_t count = 64;
	uint32_t *source = requests;
	memset(requests, 0xff, sizeof requests);
	__asm__ volatile("cld; rep outsl" : "+S"(source), "+c"(count) : "d"(0x50) : "memory");
}

static void other_port(void)
{
	__asm__ volatile("out %0, $0x60" : : "a"(0));
}

static void switch_to(uint64_t table)
{
	*top_table = table;
	ring(SWITCH);
}

static void table_at_the_end(void) { switch_to(-4096ul); }
static void table_of_ones(void) { switch_to(-1ul); }
static void table_unaligned(void) { switch_to(TABLES_GPA + 8); }
static void table_in_the_monitor(void) { switch_to(MONITOR_GPA + 0x8000); }
static void table_of_garbage(void) { switch_to(0); }

static void wait_for_ever(void)
{
	for (double end = seconds() + 1; seconds() < end;) {
		*deadline = 0;
		ring(WAIT);
		ring(FLUSH);
	}
}

static void end_with(uint32_t kind, uint32_t code)
{
	exit_record[0] = kind;
	exit_record[1] = code;
	exit_record[2] = 0xffffffff;
	memset((void *)(exit_record + 4), 0x1b, 240);
	memset((void *)(HOST_PAGE + 72), 0xff, 168);
	ring(EXIT);
}

static void exit_unknown(void) { end_with(0xffffffff, 0xffffffff); }
static void exit_faulted(void) { end_with(3, 0xffffffff); }
static void exit_signalled(void) { end_with(2, 0xfffffff0); }
static void exit_bad_program(void) { end_with(4, 0); }

/* Egress: requests of all kinds to everywhere, as fast as they are answered. */
static void egress_flood(void)
{
	uint32_t number = 0;
	for (double end = seconds() + 2; seconds() < end;) {
		for (int place = 0; place < 32; place++) {
			places[place].kind = number % 4;
			places[place].port = 80;
			memset((void *)places[place].address, 0, 16);
			places[place].address[10] = places[place].address[11] = 0xff;
			places[place].address[12] = number % 2 ? 127 : 192;
			places[place].address[15] = 1;
			places[place].sequence = 0x40000000 + ++number;
		}
		*deadline = 0;
		ring(WAIT);
	}
}

/* A way for datagrams is opened as it should be; then the ring holds headers that say anything. */
static void datagram_garbage(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(0xc0000201)}};
	sendto(fd, "x", 1, 0, (struct sockaddr *)&target, sizeof target);
	for (int slot = 0; slot < 64; slot++)
		if ((host_slots[slot].flags & 9) == 9) {
			memset((void *)(STREAMS + slot * 0x20000ul + 0x10000), 0xff, 0x10000);
			slots[slot].transmit_tail += 0x4000;
		}
	ring(NOTIFY);
	close(fd);
}

/* Shared pages and the library OS, all of them. */
static void fill(uint64_t place, size_t bytes)
{
	volatile uint64_t *words = (uint64_t *)place;
	for (size_t index = 0; index < bytes / 8; index++)
		words[index] = 0xa5a5a5a5a5a5a5a5;
	ring(NOTIFY);
	ring(WAIT);
}

/* Every index, length, number and address is the greatest that there is. */
static void guest_page_of_ones(void)
{
	memset((void *)GUEST_PAGE, 0xff, 0x2000);
	ring(NOTIFY);
}

static void guest_page(void) { fill(GUEST_PAGE, 0x2000); }
static void host_page(void) { fill(HOST_PAGE, 0x1000); }
static void boot_page(void) { fill(BOOT_PAGE, 0x1000); }
static void stream_rings(void) { fill(STREAMS, 0x800000); }
static void library_os(void) { fill(IMAGE, 0x200000); }
static void page_tables(void) { fill(TABLES, 0x200000); }
static void monitors_area(void) { *(volatile uint64_t *)(MONITOR + 0x3000) = 0; }
static void root_module(void) { *(volatile uint64_t *)MODULES = 0; }

/* Page tables: maps 2 MiB of guest-physical memory, writable, at LOOT. */
static volatile uint8_t *map(uint64_t gpa)
{
	volatile uint64_t *top = (uint64_t *)TABLES;
	volatile uint64_t *middle = (uint64_t *)(TABLES + 0x1fe000), *low = (uint64_t *)(TABLES + 0x1ff000);
	low[0] = gpa | 0xe7;
	middle[0] = (TABLES_GPA + 0x1ff000) | 0x27;
	top[LOOT_INDEX] = (TABLES_GPA + 0x1fe000) | 0x27;
	ring(FLUSH);
	return (uint8_t *)LOOT;
}

static void nowhere(void) { *map(0x7000000000); }
static void write_nowhere(void) { *map(0x7000000000) = 1; }
static void host_addresses(void) { *map(0xfee00000) = 1; }
static void shared_root(void) { *map(MODULES_GPA) = 'X'; }

/* All ports, from the monitor's own task state. */
static void open_ports(void)
{
	volatile uint8_t *area = map(MONITOR_GPA);
	for (int index = 0; index < 12; index++)
		area[0x2068 + index] = 0;
}

static void port_of_exceptions(void)
{
	open_ports();
	__asm__ volatile("outb %0, $0x58" : : "a"((uint8_t)0));
}

static void port_of_nobody(void)
{
	open_ports();
	__asm__ volatile("outb %0, $0x20" : : "a"((uint8_t)0));
}

/* Code of its own at ring 0, instead of the stub of the invalid opcode. */
static void at_ring_0(const uint8_t *code, size_t bytes)
{
	volatile uint8_t *stub = map(MONITOR_GPA) + 0x3000 + 6 * 16;
	for (size_t index = 0; index < bytes; index++)
		stub[index] = code[index];
	__asm__ volatile("ud2");
}
#define AT_RING_0(...) do { \
	static const uint8_t code[] = {__VA_ARGS__}; \
	at_ring_0(code, sizeof code); \
} while (0)

/* mov $-8, %rsp; out %al, $0x58: the frame is where no memory is */
static void frame_at_the_end(void) { AT_RING_0(0x48, 0xc7, 0xc4, 0xf8, 0xff, 0xff, 0xff, 0xe6, 0x58, 0xf4); }
/* xor %esp, %esp; out %al, $0x58 */
static void frame_at_0(void) { AT_RING_0(0x31, 0xe4, 0xe6, 0x58, 0xf4); }
/* hlt; jmp */
static void halt(void) { AT_RING_0(0xf4, 0xeb, 0xfd); }
/* out %eax, $0x60 */
static void port_at_ring_0(void) { AT_RING_0(0xe7, 0x60, 0xf4); }
/* xor %eax, %eax; mov %rax, %cr3 */
static void no_tables(void) { AT_RING_0(0x31, 0xc0, 0x0f, 0x22, 0xd8, 0xf4); }
/* mov $0xc0000080, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr: no long mode any more */
static void no_long_mode(void) { AT_RING_0(0xb9, 0x80, 0, 0, 0xc0, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30); }

/* Marks in all kinds of places of the machine, for a later invocation to find: memory in small pages and in large ones, the
 * shared pages' unused ends, rings, its page tables, a table of its own making, the stacks of its exceptions. */
static volatile uint64_t key = 0x1e3779b97f4a7c15, locked_mark = 0x40f59ee7bdad22d6; /* so that the mark itself is nowhere */
#define MARK (key ^ locked_mark)
static uint64_t ram_bytes(void) { return *(volatile uint64_t *)(BOOT_PAGE + 16); }

static void leave_marks(void)
{
	for (uint64_t place = 0xe00000; place < 0xe00000 + (44ul << 20); place += 0x10000 + 0x1000)
		if (*(volatile uint64_t *)(WINDOW + place + 0xff0) == 0)
			*(volatile uint64_t *)(WINDOW + place + 0xff0) = MARK;
	*(volatile uint64_t *)(WINDOW + ram_bytes() - 0x3000) = MARK;
	volatile uint64_t *stacks = (uint64_t *)(map(MONITOR_GPA) + 0x4000);
	for (int index = 0; index < 512; index++)
		stacks[4 * index] = MARK;
	for (int slot = 0; slot < 64; slot++)
		*(volatile uint64_t *)(STREAMS + slot * 0x20000ul + 0x8000) = MARK;
	for (uint64_t page = 0x180000; page < 0x1f0000; page += 0x1000)
		*(volatile uint64_t *)(TABLES + page + 8) = MARK;
	*(volatile uint64_t *)(BOOT_PAGE + 0xff8) = MARK;
	*(volatile uint64_t *)(LOG_RING + 0xff00) = MARK;
	*(volatile uint64_t *)(WINDOW + 0x1ff000) = MARK;
}

/* The answer is another one if there are any. */
static int marks;
static void find_marks(void)
{
	for (uint64_t place = 0; place < ram_bytes(); place += 8)
		marks += (*(volatile uint64_t *)(WINDOW + place) ^ key) == locked_mark;
	volatile uint64_t *top = (uint64_t *)TABLES;
	marks += top[LOOT_INDEX] != 0;
	volatile uint64_t *area = (uint64_t *)map(MONITOR_GPA);
	for (int index = 0; index < 0xb000 / 8; index++)
		marks += (area[index] ^ key) == locked_mark;
}

/* A descriptor that nobody uses. */
static void other_descriptors(void) { map(MONITOR_GPA)[0x800] = 1; }

static void pass_over_invalid(int number, siginfo_t *info, void *context)
{
	(void)number, (void)info;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

/* IA32_SYSENTER_CS, which nobody uses, written at ring 0 (wrmsr, before the rest of the stub), which is as it was then. */
static void other_registers(void)
{
	static const uint8_t code[] = {0x0f, 0x30, 0xe6, 0x58, 0xf4};
	volatile uint8_t *stub = map(MONITOR_GPA) + 0x3000 + 6 * 16;
	uint8_t before[sizeof code];
	struct sigaction action = {.sa_sigaction = pass_over_invalid, .sa_flags = SA_SIGINFO};
	sigaction(SIGILL, &action, NULL);
	for (size_t index = 0; index < sizeof code; index++) {
		before[index] = stub[index];
		stub[index] = code[index];
	}
	__asm__ volatile("ud2" : : "a"(0x77), "d"(0), "c"(0x174));
	for (size_t index = 0; index < sizeof code; index++)
		stub[index] = before[index];
}

static const struct {
	const char *name;
	void (*commit)(void);
} crimes[] = {
	{"tail-beyond", tail_beyond}, {"tail-far-beyond", tail_far_beyond}, {"tail-back", tail_back},
	{"head-beyond", head_beyond}, {"head-back", head_back}, {"tail-back-while-blocked", tail_back_while_blocked},
	{"generations", generations}, {"log-tail-beyond", log_tail_beyond}, {"log-tail-back", log_tail_back},
	{"log-empty-frame", log_empty_frame}, {"log-long-frame", log_long_frame},
	{"log-unknown-origin", log_unknown_origin}, {"log-garbage", log_garbage}, {"log-flood", log_flood},
	{"unknown-request", unknown_request}, {"narrow-doorbell", narrow_doorbell},
	{"many-doorbells", many_doorbells}, {"other-port", other_port}, {"table-at-the-end", table_at_the_end},
	{"table-of-ones", table_of_ones}, {"guest-page-of-ones", guest_page_of_ones},
	{"table-unaligned", table_unaligned}, {"table-in-the-monitor", table_in_the_monitor},
	{"table-of-garbage", table_of_garbage}, {"wait-for-ever", wait_for_ever}, {"exit-unknown", exit_unknown},
	{"exit-faulted", exit_faulted}, {"exit-signalled", exit_signalled}, {"exit-bad-program", exit_bad_program},
	{"egress-flood", egress_flood}, {"datagram-garbage", datagram_garbage}, {"guest-page", guest_page},
	{"host-page", host_page}, {"boot-page", boot_page}, {"stream-rings", stream_rings},
	{"library-os", library_os}, {"page-tables", page_tables}, {"monitors-area", monitors_area},
	{"root-module", root_module}, {"nowhere", nowhere}, {"write-nowhere", write_nowhere},
	{"host-addresses", host_addresses}, {"shared-root", shared_root},
	{"port-of-exceptions", port_of_exceptions}, {"port-of-nobody", port_of_nobody},
	{"frame-at-the-end", frame_at_the_end}, {"frame-at-0", frame_at_0}, {"halt", halt},
	{"port-at-ring-0", port_at_ring_0}, {"no-tables", no_tables}, {"no-long-mode", no_long_mode},
	{"leave-marks", leave_marks}, {"find-marks", find_marks}, {"other-descriptors", other_descriptors},
	{"other-registers", other_registers},
};

static int commit(const char *name)
{
	for (size_t index = 0; index < sizeof crimes / sizeof *crimes; index++)
		if (strcmp(crimes[index].name, name) == 0) {
			crimes[index].commit();
			return 1;
		}
	return 0;
}

static void serve(int connection)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nsurvived\n";
	static const char found[] = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nit marks\n";
	char request[8192], name[64] = "";
	size_t length = 0;
	while (length < sizeof request - 1) {
		ssize_t count = read(connection, request + length, sizeof request - 1 - length);
		if (count <= 0)
			return;
		length += count;
		request[length] = 0;
		if (strstr(request, "\r\n\r\n"))
			break;
	}
	if (sscanf(request, "%*s /%63[a-z0-9-]", name) == 1)
		commit(name);
	if (write(connection, marks ? found : answer, sizeof answer - 1) < 0)
		perror("write");
}

int main(int count, char **arguments)
{
	struct sigaction action = {.sa_sigaction = pass_over, .sa_flags = SA_SIGINFO};
	sigaction(SIGSEGV, &action, NULL);
	if (count > 1) {
		if (!commit(arguments[1]))
			return 2;
		puts("survived");
		return 0;
	}
	const char *port = getenv("PORT");
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) {
		perror("listen");
		return 1;
	}
	for (;;) {
		int connection = accept(listener, NULL, NULL);
		serve(connection);
		close(connection);
	}
}
