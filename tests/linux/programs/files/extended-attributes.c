// calls: setxattr getxattr listxattr removexattr
// flags: XATTR_CREATE XATTR_REPLACE
// what: an attribute that is not there is ENODATA; errors of paths and descriptors come first
#include "../check.h"
#include <sys/xattr.h>

int main(void)
{
	char text[16];
	enter_own_folder();
	write_file("data", "text");
	VALUE(getxattr("data", "user.missing", text, sizeof text));
	VALUE(removexattr("data", "user.missing"));
	VALUE(getxattr("missing", "user.name", text, sizeof text));
	VALUE(fgetxattr(1000, "user.name", text, sizeof text));
	VALUE(setxattr("missing", "user.name", "value", 5, 0));
	VALUE(listxattr("missing", text, sizeof text));
	return 0;
}
