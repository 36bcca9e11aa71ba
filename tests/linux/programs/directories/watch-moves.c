// calls: inotify_init1 inotify_add_watch rename
// flags: IN_MOVED_FROM IN_MOVED_TO IN_MOVE_SELF IN_DELETE_SELF
// what: a rename is told as two events with one cookie; a watched file tells its own moves and end
#include "../check.h"
#include <sys/inotify.h>

static void show_events(int watcher)
{
	char buffer[4096] __attribute__((aligned(8)));
	uint32_t cookie = 0;
	ssize_t length = read(watcher, buffer, sizeof buffer);
	for (char *at = buffer; at < buffer + length; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len) {
		struct inotify_event *event = (struct inotify_event *)at;
		if (event->mask & IN_MOVED_FROM)
			cookie = event->cookie;
		printf("%x %s%s\n", event->mask, event->len ? event->name : "(itself)",
			   event->mask & IN_MOVED_TO && event->cookie == cookie && cookie != 0 ? " with the same cookie" : "");
	}
}

int main(void)
{
	enter_own_folder();
	write_file("data", "text"), write_file("watched", "text");
	int watcher = MUST(inotify_init1(IN_NONBLOCK));
	MUST(inotify_add_watch(watcher, ".", IN_MOVE));
	MUST(rename("data", "moved"));
	show_events(watcher);
	int other = MUST(inotify_init1(IN_NONBLOCK));
	MUST(inotify_add_watch(other, "watched", IN_MOVE_SELF | IN_DELETE_SELF | IN_ATTRIB));
	MUST(rename("watched", "gone"));
	MUST(unlink("gone"));
	show_events(other);
	return 0;
}
