// calls: inotify_init1 inotify_add_watch inotify_rm_watch
// flags: IN_CREATE IN_MODIFY IN_DELETE IN_CLOSE_WRITE IN_NONBLOCK
// what: making, writing, closing and deleting a file in a watched folder are told in order
#include "../check.h"
#include <sys/inotify.h>

static void show_events(int watcher)
{
	char buffer[4096] __attribute__((aligned(8)));
	ssize_t length = read(watcher, buffer, sizeof buffer);
	if (length == -1)
		puts(error_name(errno));
	for (char *at = buffer; at < buffer + length; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len) {
		struct inotify_event *event = (struct inotify_event *)at;
		printf("%s%s%s%s%s %s\n", event->mask & IN_CREATE ? "create" : "", event->mask & IN_MODIFY ? "modify" : "",
			   event->mask & IN_DELETE ? "delete" : "", event->mask & IN_CLOSE_WRITE ? "close" : "",
			   event->mask & IN_IGNORED ? "ignored" : "", event->len ? event->name : "");
	}
}

int main(void)
{
	enter_own_folder();
	int watcher = MUST(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
	int watch = MUST(inotify_add_watch(watcher, ".", IN_CREATE | IN_MODIFY | IN_DELETE | IN_CLOSE_WRITE));
	show_events(watcher);
	write_file("data", "text");
	show_events(watcher);
	unlink("data");
	MUST(mkdir("folder", 0755));
	show_events(watcher);
	VALUE(inotify_rm_watch(watcher, watch));
	show_events(watcher);
	VALUE(inotify_rm_watch(watcher, watch));
	VALUE(inotify_add_watch(watcher, "missing", IN_CREATE));
	VALUE(inotify_init1(1));
	return 0;
}
