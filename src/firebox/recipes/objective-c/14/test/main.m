#import <Foundation/Foundation.h>

int main(void)
{
  printf("%s\n", [[@"ok" uppercaseString] UTF8String]);
  return 0;
}
