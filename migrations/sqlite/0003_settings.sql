-- What holds for the scheduler as a whole, such as since when it is paused.
create table settings (
    name  text primary key not null,
    value text not null
);
